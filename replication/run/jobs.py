"""The work of a run, as jobs that can run anywhere and at the same time. Imports no torch.

A job is one process: it measures a model's distance map, or one healing with all scores that need
it, or what a notebook wants of a model that is not healed. It needs its model's map, and no other
job: each healing begins anew, a longer one too.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lib import storage
from replication import profiles
from replication.measure import request, signals
from replication.measure.request import Request
from replication.profiles import Profile
from replication.run.notebooks import NOTEBOOKS


@dataclass(frozen=True)
class Job:
    """Some results of one model; their notebook is the first that wants them."""

    name: str
    model: str
    notebook: str

    @property
    def map_name(self) -> str:
        """Return the name of the job of its model's map, which it needs or is."""
        return f"{_short(self.model)}-map"

    @property
    def is_map(self) -> bool:
        return self.name == self.map_name


def by_job(
    model: str, profile: Profile, notebooks: Iterable[str], distances
) -> dict[Job, list[Request]]:
    """Return the jobs of a model's notebooks (numbers), and the results of each in order.

    A result that several want is in the first job. The jobs are the same for whatever distances;
    only where two strategies choose the same block has one of them nothing left.
    """
    measuring = [
        number
        for number in notebooks
        if NOTEBOOKS[number].experiments and model in NOTEBOOKS[number].models(profile)
    ]
    if not measuring:
        return {}
    numbered = [
        (number, one)
        for number in measuring
        for experiment in NOTEBOOKS[number].experiments
        for one in signals.to_measure(experiment(model, distances, profile))
    ]
    the_map = request.similarity(model, profile)
    of_map = f"{_short(model)}-map"
    jobs, results = {of_map: Job(of_map, model, measuring[0])}, {of_map: [the_map]}
    known = {str(the_map.params)}  # results that have a job
    healed_by = {}  # the name of the job of each healing
    usual_steps = profiles.recipe(model, profile).steps
    for number, one in numbered:
        if one.recipe:
            own = f"{_short(model)}-{_healing(one, usual_steps)}"
            # listed in any case: which strategies choose one block is known only after the map
            jobs.setdefault(own, Job(own, model, number))
            results.setdefault(own, [])
            name = healed_by.setdefault(str(one.healing.params), own)
            wanted = [one.healing, one]
        else:
            name = f"{_short(model)}-{number}-unhealed"
            wanted = [one]
        new = [result for result in wanted if str(result.params) not in known]
        known |= {str(result.params) for result in new}
        if new:
            jobs.setdefault(name, Job(name, model, number))
            results.setdefault(name, []).extend(new)
    return {job: results[name] for name, job in jobs.items()}


def _short(model: str) -> str:
    """Return a model as the names of its jobs have it."""
    return storage.component(model.rpartition("/")[2])


def _healing(one: Request, usual_steps: int) -> str:
    """Return the name of a healing's job."""
    recipe, size = one.recipe, one.block.size
    strategy = storage.component(one.labels["strategy"])
    parts = [f"{strategy}-n{size:02}" if size else "unpruned"]
    parts.append(f"r{recipe.rank}-s{recipe.seed}")
    if recipe.steps != usual_steps:
        parts.append(f"{recipe.steps}steps")
    return "-".join([*parts, "healed"])
