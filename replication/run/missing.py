"""Which results the jobs of a run must still leave. Loads no model, imports no torch."""

import functools
import json
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from lib.blocks import BlockDistances
from lib.models import registry
from replication import paths
from replication.measure import cache
from replication.measure.request import Request, similarity
from replication.profiles import Profile
from replication.run.jobs import Job, by_job

MACHINE = ("revision", "quantization", "dtype", "device")  # of a result's model


class Guess(NamedTuple):
    """Best starts of a model without a map: those published of it, else as in the mean of all."""

    model: str
    num_layers: int

    def best_start(self, size: int) -> int:
        """l*(n), n = size."""
        published = _published()
        after = []  # shares of the layers that come after a cut of this share of the layers
        for name in [self.model] if self.model in published else published:
            starts, layers = published[name], registry.MODELS[name].shape.num_layers
            cut = min(max(1, round(size / self.num_layers * layers)), len(starts))
            after.append(1 - (starts[cut - 1] + cut) / layers)
        return self.num_layers - size - round(self.num_layers * fmean(after))


@functools.cache
def _published() -> dict[str, list[int]]:
    """The best starts of published models, of n = 1, 2, …"""
    starts = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))["best_starts"]
    return {name: starts[name] for name in starts if name in registry.MODELS}


def maps_of(model: str, profile: Profile, recorded: dict[str, dict]) -> list[dict]:
    """The stored (or recorded) results of a model's distances; one for each kind of machine.

    Where there are none of this version, those of others: what they chose is likely chosen again.
    """
    params = similarity(model, profile).params | {"revision": registry.resolve(model).revision}
    params = {name: value for name, value in params.items() if name != "dtype" or value}
    version = params.pop("version")
    of_record = [result for result in recorded.values() if result["kind"] == "similarity"]
    there = [*cache.stored("similarity"), *of_record]
    same = [result for result in there if params.items() <= result["params"].items()]
    return [result for result in same if result["params"]["version"] == version] or same


def missing(
    model: str,
    profile: Profile,
    notebooks: Sequence[str],
    recorded: dict[str, dict] | None = None,
) -> dict[Job, list[Request]]:
    """The jobs of a model's notebooks, and the results that each must still leave.

    Of several machines that have made a map, what the one lacks that has most of a job. Without a
    map all is missing, and blocks are guessed; of a model whose depth is not known yet there is
    only the job of its map. A job that was listed then, and that the map shows to be the same as
    another, stays listed and lacks nothing. recorded: results that are there, whatever is stored,
    by key.
    """
    recorded = recorded or {}
    before_map = _before_map(model, profile, notebooks)
    of_machines = []
    for result in maps_of(model, profile, recorded):
        machine = {name: result["params"][name] for name in MACHINE if name in result["params"]}
        jobs = by_job(model, profile, notebooks, BlockDistances.stored(result["values"]))
        lacks = {}
        for job, requests in jobs.items():
            keyed = [Request(r.kind, r.params | machine, r.labels) for r in requests]
            lacks[job] = [r for r in keyed if not _is_there(r, recorded)]
        of_machines.append(lacks)
    if not of_machines:
        return before_map
    left = {
        job: min((lacks[job] for lacks in of_machines if job in lacks), key=len)
        for job in of_machines[0]
    }
    names = {job.name for job in left}
    return left | {job: [] for job in before_map if job.name not in names}


def _before_map(model: str, profile: Profile, notebooks: Sequence[str]) -> dict[Job, list[Request]]:
    """The jobs of a model without a map, and all their results, of guessed blocks."""
    layers = registry.num_layers(model)
    jobs = by_job(model, profile, notebooks, Guess(model, layers or 1), apart=True)
    return {job: requests for job, requests in jobs.items() if layers or job.is_map}


def key_of(request: Request, ignored: tuple[str, ...] = ()) -> str:
    """The key of a result; without some parameters, the same for results that share the others."""
    params = {name: value for name, value in request.params.items() if name not in ignored}
    return cache.key(request.kind, params)


def _is_there(request: Request, recorded: dict[str, dict]) -> bool:
    """Whether a result is stored, or is not to be had.

    That is so where its healing failed, and where the whole model has solved no problem of GSM8K.
    """
    if key_of(request) in recorded or cache.location(request.kind, request.params).exists():
        return True
    if request.recipe:
        healing = _record(request.healing, recorded)
        return healing is not None and healing["values"]["status"] != "ok"
    whole = _record(request.whole, recorded) if request.writes and request.block.size else None
    return whole is not None and whole["values"]["value"] == 0


def _record(request: Request, recorded: dict[str, dict]) -> dict | None:
    return recorded.get(key_of(request)) or cache.load(request.kind, request.params)
