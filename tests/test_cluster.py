"""The order of jobs under any engine, and what Ray is asked for; with Ray itself where `real`."""

import os

import pytest
from conftest import replicate

from benchmarks.faults import nodes
from lib.models import machine, registry
from replication import profiles
from replication.__main__ import main
from replication.run import batch, measuring
from replication.run.execution import Launch, Outcome
from replication.run.jobs import Job
from replication.run.notebooks import NOTEBOOKS

SMOKE = profiles.get("smoke")
KINDS = ("map", "02-unhealed", "similarity-n02-r8-s0-healed", "simple-n02-r8-s0-healed")
ALL = [Job(f"{model[-1]}-{kind}", model, "02") for model in ("a/b", "c/d") for kind in KINDS]


class Backwards(batch.Serial):
    """An engine in which what was submitted last ends first."""

    def ended(self):
        launch = self.queue.pop()
        return launch, self.execute(launch)


@pytest.mark.parametrize("engine", [batch.Serial, Backwards])
def test_a_job_needs_its_models_map_only(engine):
    """A failure changes no other job; a model that cannot be had is tried once."""
    ends = {"d-02-unhealed": Outcome("failed")}

    def ended() -> tuple[list[str], dict]:
        order = []

        def execute(launch):
            order.append(launch.job)
            return ends.get(launch.job, Outcome("ok"))

        jobs = batch.in_order(ALL, engine(execute), lambda job: Launch(job=job.name))
        return order, {job.name: outcome.status for job, outcome in jobs}

    order, statuses = ended()
    assert sorted(order) == sorted(job.name for job in ALL) and order == list(statuses)
    assert all(order.index(job.map_name) <= order.index(job.name) for job in ALL)
    assert {name for name in order if statuses[name] != "ok"} == {*ends}
    if engine is Backwards:  # the jobs of one model do not wait for the other's map
        assert order.index("b-map") > order.index("d-02-unhealed")
    ends = {"b-map": Outcome("skipped: gated")}
    order, statuses = ended()
    assert [name for name in order if name[0] == "b"] == ["b-map"]
    assert {statuses[job.name] for job in ALL if job.model == "a/b"} == {"skipped: gated"}
    assert {statuses[job.name] for job in ALL if job.model == "c/d"} == {"ok"}


def test_what_is_done_is_not_repeated(output):
    """After a failure a notebook only draws, where it is one that jobs measure for."""
    numbers, failing = ("01", "02", "09"), "tiny-random-02-unhealed"
    whole = batch.Batch({number: NOTEBOOKS[number] for number in numbers}, {}, SMOKE)
    jobs = {planned.job.name: planned.job for planned in whole.planned()}
    tried, fails, read_only = [], {failing}, {}

    def execute(launch):
        if not launch.job:
            read_only[launch.notebook.file[:2]] = launch.read_only
            reason = "without m (not measured)"
            return Outcome("incomplete", reason) if fails else Outcome("ok", seconds=1.0)
        tried.append(launch.job)
        if launch.job in fails:
            return Outcome("time limit", "by intention")
        return measuring.run_job(jobs[launch.job], SMOKE, numbers)

    outcomes = batch.run(whole, batch.Serial(execute))
    assert {name for name in jobs if outcomes[name].status != "ok"} == fails
    assert outcomes["02_pruning_curves"].reason == "without m (not measured); jobs: time limit"
    assert tried == [*jobs] and read_only == {"01": True, "02": True, "09": False}
    fails.clear()
    tried.clear()
    outcomes = batch.run(whole, batch.Serial(execute))
    assert {end.status for end in outcomes.values()} == {"ok"} and tried == [failing]
    assert outcomes["tiny-random-map"] == batch.DONE_BEFORE
    assert not any(planned.missing for planned in whole.planned())


def test_a_model_of_unknown_depth_has_its_other_jobs_after_its_map(output, monkeypatch):
    """As a hub model, of which no config.json is here."""
    tried, layers = [], registry.num_layers("tiny-random")
    monkeypatch.setattr(registry, "num_layers", lambda name: layers if tried else None)
    whole, progress = batch.Batch({"02": NOTEBOOKS["02"]}, {}, SMOKE), batch.Progress({})

    def execute(launch):
        tried.append(launch.job)
        return Outcome("ok", seconds=1.0)

    batch.run_jobs(whole, batch.Serial(execute), progress)
    assert tried == ["tiny-random-map", "tiny-random-02-unhealed"] == [*progress.outcomes]


@pytest.mark.parametrize(
    "engine, gpus, threads",
    [("local", 8, "16"), ("ray", 8, "2"), ("ray", 0, "16"), ("ray", 32, "1")],
)
def test_jobs_on_one_machine_share_its_cores(monkeypatch, engine, gpus, threads):
    """Under Ray as many as it has GPUs; the environment's own number stays."""
    monkeypatch.setattr(machine, "cores", lambda: 16)
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    for own, used in (("3", "3"), (None, threads)):
        monkeypatch.setenv("OMP_NUM_THREADS", own or "")
        if own is None:
            monkeypatch.delenv("OMP_NUM_THREADS")
        assert main(["--profile", "nope", "--engine", engine]) == 2
        assert os.environ["OMP_NUM_THREADS"] == used


@pytest.mark.parametrize(
    "visible, gpus", [("0,1,2", 3), ("GPU-8b2c", 1), ("", 0), ("NoDevFiles", 0)]
)
def test_how_many_gpus_may_be_used(monkeypatch, visible, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert machine.gpus() == gpus


@pytest.mark.parametrize(
    "nodes, resources",
    [
        ([{"GPU": 8, "CPU": 64}], {"num_gpus": 1, "num_cpus": 1}),
        ([{"CPU": 2}, {"CPU": 8}], {"num_cpus": 4}),
        ([{"CPU": 2}], {"num_cpus": 2}),
    ],
)
def test_what_a_job_takes_of_a_node(monkeypatch, nodes, resources):
    cluster = pytest.importorskip("replication.run.cluster")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert cluster.resources([{"Resources": node} for node in nodes]) == resources


@pytest.mark.real
@pytest.mark.parametrize("fault", nodes.SLOW, ids=lambda fault: fault.fault)
def test_faults_of_nodes(tmp_path, fault):
    assert fault.check(tmp_path)


@pytest.mark.real
def test_ray_gives_the_tables_of_the_serial_engine(smoke_run, tmp_path):
    """In an empty folder, with jobs of every kind: the same CSVs, but for those of seconds."""
    numbers = ("02", "03", "12", "14")  # scores, healings of several lengths, damage, states, maps
    done = replicate(tmp_path, "--profile", "smoke", "--engine", "ray", "--only", *numbers)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (name for number in numbers for name in NOTEBOOKS[number].figures):
        if not name.startswith("figure_repair"):
            once, again = (f / "figures/smoke" / f"{name}.csv" for f in (smoke_run, tmp_path))
            assert again.read_bytes() == once.read_bytes(), name
