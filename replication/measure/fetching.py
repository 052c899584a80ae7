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


Rows = list[dict]  # of a result


def fetch(requests: Sequence[Request], measure: Callable[[list[Request]], None]) -> list[Rows]:
    """Return the rows of each request's result, in order.

    measure: gets all requests without a result at once, so that it can share work between them, and
    stores their results. Of a result that is missing all the same (this run only draws, or its
    healing failed) there is one row without values, whose status says why.
    """
    requests = keyed_by_machine(requests)
    results = [cache.load(r.kind, r.params) for r in requests]
    missing = [r for r, rows in zip(requests, results, strict=True) if rows is None]
    if missing and not paths.draws_only():
        _measure(missing, measure)
    pairs = zip(requests, results, strict=True)
    return [rows or cache.load(r.kind, r.params) or [_gap(r)] for r, rows in pairs]


def _measure(missing: list[Request], measure: Callable[[list[Request]], None]) -> None:
    """Measure what is missing: first the whole models that decide what is asked of their cuts."""
    first = _without_result(signals.asked_first(missing))
    if first:
        measure(first)
    measure(_without_result(r for r in missing if not signals.is_futile(r)))


def _without_result(requests: Iterable[Request]) -> list[Request]:
    return [r for r in requests if not cache.exists(r.kind, r.params)]


def fetch_each(requests: Sequence[Request], compute: Callable[[dict], Rows]) -> list[Rows]:
    """Return the rows of each request's result, in order; `compute(params)` what is missing."""

    def measure(missing: list[Request]) -> None:
        for r in missing:
            cache.load_or_compute(r.kind, r.params, functools.partial(compute, r.params))

    return fetch(requests, measure)


def _gap(request: Request) -> dict:
    """Return a row without values that says why there are none."""
    healing = request.recipe and cache.load("healing", request.healing.params)
    status = NotMeasured.status
    if healing and healing[0]["status"] != "ok":
        status = healing[0]["status"]
    elif signals.is_futile(request):
        status = signals.NOT_ASKED
    origin = cache.origin(request.kind, request.params, status)
    return cache.columns(request.params) | origin


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
