"""Measure what a job lacks, in a process of its own: by the paths that the notebooks go.

Loads torch only when it measures.
"""

from collections.abc import Sequence

from replication import tables
from replication.measure import cache, distance_maps, fetching, request
from replication.profiles import Profile
from replication.run.execution import Outcome, outcome_of
from replication.run.jobs import Job, by_job
from replication.tables import NotMeasured


def run_job(job: Job, profile: Profile, notebooks: Sequence[str]) -> Outcome:
    """Measure all results of a job. Raises NotMeasured if it needs a map that is not there."""
    if job.is_map:
        distance_maps.of_model(job.model, profile)
        return Outcome("ok")
    (the_map,) = fetching.keyed_by_machine([request.similarity(job.model, profile)])
    rows = cache.load(the_map.kind, the_map.params)
    if rows is None:
        raise NotMeasured(f"It needs the model's map: run job {job.map_name} first.")
    requests = by_job(job.model, profile, notebooks, tables.distances_of(rows)).get(job, [])
    healings = [one for one in requests if one.kind == "healing"]
    cache.forget_out_of_memory(one.params for one in fetching.keyed_by_machine(healings))
    statuses = dict.fromkeys(rows[0]["status"] for rows in fetching.fetch(requests))
    return outcome_of([(job.model, status) for status in statuses if status != "ok"])
