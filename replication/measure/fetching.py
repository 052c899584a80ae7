"""Request and fetch: a stored result is read, a missing one is measured first and stored."""

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from lib import models
from replication import paths
from replication.measure import cache, signals
from replication.measure.request import Request, weights_of
from replication.tables import NotMeasured, grouped

Rows = list[dict]  # of a result
Measure = Callable[[list[Request]], None]  # stores the results of requests of one kind
MEASURE: dict[str, Measure] = {}  # by kind; a module adds those that it measures

log = logging.getLogger(__name__)


def fetch(requests: Sequence[Request]) -> list[Rows]:
    """Return the rows of each request's result, in order, measured if they are missing.

    Of a result that is missing all the same (this run only draws, or its healing failed) there is
    one row without values, whose status says why.
    """
    requests = keyed_by_machine(requests)
    results = [cache.load(one.kind, one.params) for one in requests]
    missing = [one for one, rows in zip(requests, results, strict=True) if rows is None]
    if missing and not paths.draws_only():
        # what a whole model answers says of which cuts an answer can be had at all
        _measure_missing(signals.to_measure_first(missing))
        _measure_missing(one for one in missing if not signals.is_futile(one))
    return [
        rows or cache.load(one.kind, one.params) or [_gap(one)]
        for one, rows in zip(requests, results, strict=True)
    ]


def _measure_missing(requests: Iterable[Request]) -> None:
    """Measure what has no result; all of a kind at once, so that they can share work."""
    missing = [request for request in requests if not cache.exists(request.kind, request.params)]
    for measure, of_kind in grouped(missing, lambda request: MEASURE[request.kind]).items():
        measure(of_kind)


def each(compute: Callable[[dict], Rows], errors: tuple = ()) -> Measure:
    """Return what measures requests one by one: by `compute(params)`, each anew after `errors`."""

    def measure(missing: list[Request]) -> None:
        for request in missing:
            with going_on_after(errors, request):
                start = time.monotonic()
                rows = compute(request.params)
                cache.save(request.kind, request.params, rows, time.monotonic() - start)

    return measure


def _gap(request: Request) -> dict:
    """Return a row without values that says why there are none."""
    healing = request.recipe and cache.load("healing", request.healing.params)
    status = NotMeasured.status
    if healing and healing[0]["status"] != "ok":
        status = healing[0]["status"]
    else:
        status = signals.why_futile(request) or status
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
        params = request.params | identity(*weights_of(request.params))
        if request.kind == "inference_cost":
            params |= cache.timing_identity(params["device"])
        keyed.append(replace(request, params=params))
    return keyed


def loaded(params: dict) -> tuple:
    """Return the model and the tokenizer that a result's parameters name."""
    return models.load_cached(*weights_of(params))
