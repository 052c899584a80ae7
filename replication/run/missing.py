"""Which results the jobs of a run must still leave. Loads no model, imports no torch."""

import json
from functools import cache
from statistics import fmean
from typing import NamedTuple

from lib.blocks import BlockDistances
from lib.models import registry
from replication import paths, results
from replication.measure.request import Request, similarity
from replication.profiles import Profile
from replication.results.archive import Archive, stored
from replication.run.jobs import Job

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


@cache
def _published() -> dict[str, list[int]]:
    """The best starts of published models, of n = 1, 2, …"""
    starts = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))["best_starts"]
    return {name: starts[name] for name in starts if name in registry.MODELS}


def maps_of(model: str, profile: Profile, recorded: Archive) -> list[dict]:
    """The stored (or recorded) results of a model's distances; one for each kind of machine."""
    params = similarity(model, profile).params | {"revision": registry.resolve(model).revision}
    params = {name: value for name, value in params.items() if name != "dtype" or value}
    there = [*stored(paths.RESULTS, "similarity"), *recorded.records("similarity")]
    return [result for result in there if params.items() <= result["params"].items()]


def missing(job: Job, profile: Profile, maps: list[dict], recorded: set[str]) -> list[Request]:
    """The results of a job that no machine which has made one of `maps` has left.

    recorded: keys of results that are there, whatever is stored.
    """
    if not maps:
        return job.requests(Guess(job.model, registry.num_layers(job.model)), profile)
    of_machines = []
    for result in maps:
        machine = {name: result["params"][name] for name in MACHINE if name in result["params"]}
        requests = job.requests(BlockDistances.stored(result["values"]), profile)
        of_machines.append([Request(r.kind, r.params | machine) for r in requests])
    return [
        same[0]
        for same in zip(*of_machines, strict=True)
        if not any(_is_there(request, recorded) for request in same)
    ]


def key_of(request: Request, ignored: tuple[str, ...] = ()) -> str:
    """The key of a result; without some parameters, the same for results that share the others."""
    params = {name: value for name, value in request.params.items() if name not in ignored}
    return results.key(request.kind, params)


def _is_there(request: Request, recorded: set[str]) -> bool:
    """Whether a result is stored, or its healing failed, so that there is none to be had."""
    if key_of(request) in recorded or results.location(request.kind, request.params).exists():
        return True
    healing = results.load("healing", request.healing.params) if request.recipe else None
    return healing is not None and healing["values"]["status"] != "ok"
