"""Measure what a job lacks, in a process of its own: by the paths that the notebooks go.

Loads torch only when it measures.
"""

from collections.abc import Sequence

from lib.blocks import BlockDistances
from replication import results
from replication.beyond import repair, which_block
from replication.measure import damage, distance_maps, fetching, request, scores
from replication.measure.request import grouped
from replication.profiles import Profile
from replication.run.execution import Outcome, judged
from replication.run.jobs import Job, by_job

FETCH = {  # the records of requests of a kind, measured if they are missing
    "scores": scores.fetch,
    "healing": scores.fetch,
    "repair": repair.fetch,
    "damage": damage.fetch,
    "states": which_block.fetch,
}


def measure(job: Job, profile: Profile, notebooks: Sequence[str]) -> Outcome:
    """Measure all results of a job. Raises NotMeasured if it needs a map that is not there."""
    if job.is_map:
        distance_maps.of_model(job.model, profile)
        return Outcome("ok")
    (record,) = fetching.fetch([request.similarity(job.model, profile)], lambda missing: None)
    if not record["values"]:
        raise results.NotMeasured(f"It needs the model's map: run job {job.map_name} first.")
    distances = BlockDistances.stored(record["values"])
    requests = by_job(job.model, profile, notebooks, distances).get(job, [])
    healings = [one for one in requests if one.kind == "healing"]
    results.forget_out_of_memory(one.params for one in fetching.keyed_by_machine(healings))
    gaps = {}
    for fetch, of_kind in grouped(requests, lambda one: FETCH[one.kind]).items():
        for record in fetch(of_kind):
            if record["status"] != "ok":
                gaps[job.model, record["status"]] = None
    return judged(gaps)
