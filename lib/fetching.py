"""Ask and fetch: what is stored is read, what is missing is measured first, all of it at once."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lib import models, results
from lib.wanted import Wanted


def fetched(wanted: Sequence[Wanted], measure: Callable[[list[Wanted]], None]) -> list[dict]:
    """The record of each result, in order.

    measure: is handed all that is missing, and stores it. A result that is missing all the same
    (this run only draws, or its healing failed) has no values, and its status says why.
    """
    wanted = here(wanted)
    missing = [w for w in wanted if results.load(w.kind, w.params) is None]
    if missing and not results.draws_only():
        measure(missing)
    return [_answer(w) for w in wanted]


def _answer(wanted: Wanted) -> dict:
    """The record of a result, or one without values that says why there is none."""
    record = results.load(wanted.kind, wanted.params)
    if record:
        return record
    failed = wanted.recipe and results.load("healing", wanted.healing.params)
    gone = failed and failed["status"] != "ok"
    status = failed["status"] if gone else results.NotMeasured.status
    return {"params": wanted.params, "values": None, "status": status}


def here(wanted: Sequence[Wanted]) -> list[Wanted]:
    """The same, keyed by this machine: the very weights, and how they compute here."""
    asked = {_who(w): None for w in wanted}
    known = {who: models.weights_of(*who) for who in asked}
    return [replace(w, params=w.params | known[_who(w)]) for w in wanted]


def _who(w: Wanted) -> tuple:
    return w.params["model"], w.params["quantization"], w.params["dtype"]
