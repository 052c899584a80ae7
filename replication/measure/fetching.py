"""Ask and fetch: what is stored is read, what is missing is measured first, all of it at once."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from lib.models import loading
from lib.models.registry import ModelError
from replication import results
from replication.measure.wanted import Wanted
from replication.profiles import Profile

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
    return [results.load(w.kind, w.params) or _gap(w) for w in wanted]


def _gap(wanted: Wanted) -> dict:
    """A record without values that says why there is none."""
    healed = wanted.recipe and results.load("healing", wanted.healing.params)
    failed = healed and healed["status"] != "ok"
    status = healed["status"] if failed else results.NotMeasured.status
    return {"params": wanted.params, "values": None, "status": status}


def here(wanted: Iterable[Wanted]) -> list[Wanted]:
    """The same, keyed by this machine: the very weights, and how they compute here.

    As they are where an archive is read, which finds them on whatever machine.
    """
    if results.ARCHIVE.get():
        return list(wanted)
    known = {}

    def keyed(w: Wanted) -> Wanted:
        who = w.params["model"], w.params["quantization"], w.params["dtype"]
        if who not in known:
            known[who] = loading.weights_of(*who)
        return replace(w, params=w.params | known[who])

    return [keyed(w) for w in wanted]


def tried(measure: Callable[[str], object], names: Iterable[str]) -> tuple[dict, dict]:
    """`measure(name)` of each of `names` that can be had, and the status of the others.

    Those are told in the log. Raises the ModelError (or NotMeasured) of the last one if none can
    be had.
    """
    found, missing, problem = {}, {}, None
    for name in names:
        try:
            found[name] = measure(name)
        except (ModelError, results.NotMeasured) as error:
            missing[name], problem = error.status, error
            log.warning("Without %s: %s", name, error)
    if problem and not found:
        raise problem
    return found, missing


def measure_each(
    measure: Callable[[str, Profile], object], names: Iterable[str], profile: Profile
) -> tuple[dict[str, object], Profile]:
    """`measure(name, profile)` of each of `names` that can be had; the profile without the others.

    Those stand in its `missing`, which every figure shows. Raises as `tried`.
    """
    found, missing = tried(lambda name: measure(name, profile), names)
    left = tuple(name for name in profile.models if name not in missing)
    return found, replace(profile, models=left, missing=(*profile.missing, *missing.items()))
