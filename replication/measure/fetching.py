"""Request and fetch: a stored result is read, a missing one is measured first and stored."""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from lib import models
from replication import paths
from replication.measure import cache, signals
from replication.measure.request import Request
from replication.tables import NotMeasured

log = logging.getLogger(__name__)


def fetch(requests: Sequence[Request], measure: Callable[[list[Request]], None]) -> list[dict]:
    """Return the record of each request, in order.

    measure: gets all requests without a result at once, so that it can share work between them, and
    stores their results. A result that is missing all the same (this run only draws, or its healing
    failed) has no values, and its status says why.
    """
    requests = keyed_by_machine(requests)
    records = [cache.load(r.kind, r.params) for r in requests]
    missing = [r for r, record in zip(requests, records, strict=True) if record is None]
    if missing and not paths.draws_only():
        if first := signals.asked_first(missing):
            measure([r for r in first if cache.load(r.kind, r.params) is None])
        missing = [r for r in missing if not signals.is_futile(r)]
        missing = [r for r in missing if cache.load(r.kind, r.params) is None]
        measure(missing)
    pairs = zip(requests, records, strict=True)
    return [record or cache.load(r.kind, r.params) or _gap(r) for r, record in pairs]


def fetch_each(requests: Sequence[Request], compute: Callable[[dict], dict]) -> list[dict]:
    """Return the record of each request, in order; `compute(params)` of one without a result."""

    def measure(missing: list[Request]) -> None:
        for r in missing:
            cache.load_or_compute(r.kind, r.params, functools.partial(compute, r.params))

    return fetch(requests, measure)


def _gap(request: Request) -> dict:
    """Return a record without values that says why there is none."""
    healed = request.recipe and cache.load("healing", request.healing.params)
    status = NotMeasured.status
    if healed and healed["status"] != "ok":
        status = healed["status"]
    elif signals.is_futile(request):
        status = signals.NOT_ASKED
    return {"kind": request.kind, "params": request.params, "values": None, "status": status}


@contextmanager
def going_on_after(errors, request: Request) -> Iterator[None]:
    """Leave a model's results missing where one of `errors` is raised; the log says why."""
    try:
        yield
    except errors as error:
        params = request.params | {"error": error}
        log.warning("Without %(model)s, quantization %(quantization)s: %(error)s", params)


def keyed_by_machine(requests: Iterable[Request]) -> list[Request]:
    """Return the requests keyed by the very weights, and by how they compute on this machine."""
    identity = functools.cache(cache.weights_identity)
    keyed = []
    for request in requests:
        weights = (request.params[key] for key in ("model", "quantization", "dtype"))
        keyed.append(replace(request, params=request.params | identity(*weights)))
    return keyed


def loaded(params: dict) -> tuple:
    """Return the model and the tokenizer that a result's parameters name."""
    return models.load_cached(*(params[key] for key in ("model", "quantization", "dtype")))


def origin(record: dict) -> dict:
    """Return the columns that say how a record was made: its request and environment, as JSON."""
    return {
        "status": record["status"],
        "took": record.get("seconds"),
        "request": cache.canonical({"kind": record["kind"]} | record["params"]),
        "environment": cache.canonical(record.get("environment")),
    }
