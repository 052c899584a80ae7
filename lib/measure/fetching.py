"""Ask and fetch: what is stored is read, what is missing is measured first, all of it at once."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from lib import results
from lib.measure.wanted import Wanted
from lib.models import loading
from lib.models.registry import ModelError
from lib.profiles import Profile

log = logging.getLogger(__name__)


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
    """The same, keyed by this machine: the very weights, and how they compute here.

    As they are where an archive is read, which finds them on whatever machine.
    """
    if results.ARCHIVE.get():
        return list(wanted)
    asked = {_who(w): None for w in wanted}
    known = {who: loading.weights_of(*who) for who in asked}
    return [replace(w, params=w.params | known[_who(w)]) for w in wanted]


def _who(w: Wanted) -> tuple:
    return w.params["model"], w.params["quantization"], w.params["dtype"]


def measure_each(
    measure: Callable, names: Sequence[str], profile: Profile
) -> tuple[dict[str, object], Profile]:
    """`measure(name, profile)` of each of `names` that can be had; the profile without the others.

    Those stand in its `missing`, which every figure shows, and are told in the log. Raises the
    ModelError (or NotMeasured) of the last one if none can be had.
    """
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = measure(name, profile)
        except (ModelError, results.NotMeasured) as error:
            missing[name] = error.status
            log.warning("Without %s: %s", name, error)
            if not found and name == names[-1]:
                raise
    left = tuple(name for name in profile.models if name not in missing)
    return found, replace(profile, models=left, missing=(*profile.missing, *missing.items()))
