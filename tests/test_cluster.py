"""The order of jobs under any engine, and what Ray is asked for; with Ray itself where `real`."""

import os
import subprocess
import sys

import pytest

from benchmarks.faults import nodes
from lib.models import machine, registry
from replication import paths, profiles
from replication.__main__ import main
from replication.run import batch, measuring
from replication.run.execution import Launch, Outcome
from replication.run.jobs import Job
from replication.run.notebooks import NOTEBOOKS

TIMED = {"figure_cost", "figure_repair", "figure_repair_cost"}  # figures of seconds


class Backwards(batch.Serial):
    """An engine in which what was submitted last ends first."""

    def ended(self):
        launch = self.queue.pop()
        return launch, self.execute(launch)


SMOKE = profiles.get("smoke")
MODELS = ("a/b", "c/d")
KINDS = ("map", "02-unhealed", "similarity-n02-r8-s0-healed", "simple-n02-r8-s0-healed")
ALL = [Job(f"{model[-1]}-{kind}", model, "02") for model in MODELS for kind in KINDS]


def launch_of(job: Job) -> Launch:
    return Launch(job=job.name)


@pytest.mark.parametrize("engine", [batch.Serial, Backwards])
def test_a_job_needs_its_models_map_only(engine):
    order = []

    def execute(launch):
        order.append(launch.job)
        return Outcome("failed" if "unhealed" in launch.job else "ok")

    ended = [job.name for job, _ in batch.in_order(ALL, engine(execute), launch_of)]
    assert sorted(ended) == sorted(job.name for job in ALL) and ended == order
    for job in ALL:
        assert order.index(job.map_name) <= order.index(job.name)
    if engine is Backwards:  # the jobs of one model do not wait for the other's map
        assert order.index("b-map") > order.index("d-02-unhealed")


@pytest.mark.parametrize("engine", [batch.Serial, Backwards])
def test_a_model_that_cannot_be_had_is_tried_once(engine):
    tried = []

    def execute(launch):
        tried.append(launch.job)
        return Outcome("skipped: gated", "is gated") if launch.job[0] == "b" else Outcome("ok")

    ended = dict(batch.in_order(ALL, engine(execute), launch_of))
    assert set(ended) == set(ALL)
    assert [name for name in tried if name[0] == "b"] == ["b-map"]
    assert {ended[job].status for job in ALL if job.model == "a/b"} == {"skipped: gated"}
    assert {ended[job].status for job in ALL if job.model == "c/d"} == {"ok"}


def test_a_failure_changes_no_other_job_and_what_is_done_is_not_repeated(output):
    """After a failure a notebook only draws, where it is one that jobs measure for."""
    numbers = ("01", "02", "03", "09")
    whole = batch.Batch({number: NOTEBOOKS[number] for number in numbers}, {}, SMOKE)
    names = [planned.job.name for planned in whole.planned()]
    tried, fails, read_only = [], {"tiny-random-02-unhealed"}, {}

    def execute(launch):
        tried.append(launch.job)
        if not launch.job:
            read_only[launch.notebook.file[:2]] = launch.read_only
            if fails:
                return Outcome("incomplete", "without m (not measured)")
        elif launch.job in fails:
            return Outcome("time limit", "by intention")
        else:
            measuring.measure(jobs_by_name()[launch.job], SMOKE, numbers)
        return Outcome("ok", seconds=2.0)

    def jobs_by_name():
        return {planned.job.name: planned.job for planned in whole.planned()}

    outcomes = batch.run(whole, batch.Serial(execute))
    assert [name for name in names if outcomes[name].status != "ok"] == [*fails]
    assert outcomes["02_pruning_curves"].reason == "without m (not measured); jobs: time limit"
    assert tried == [*names, *[""] * 4]
    assert read_only == {"01": True, "02": True, "03": True, "09": False}
    fails, tried = set(), []
    outcomes = batch.run(whole, batch.Serial(execute))
    assert {end.status for end in outcomes.values()} == {"ok"}
    assert tried == ["tiny-random-02-unhealed", *[""] * 4]
    assert outcomes["tiny-random-map"] == batch.DONE_BEFORE
    assert all(not planned.missing for planned in whole.planned())


def test_a_model_of_unknown_depth_has_its_other_jobs_after_its_map(output, monkeypatch):
    """As a hub model, of which no config.json is here."""
    known, layers = [], registry.num_layers("tiny-random")
    monkeypatch.setattr(registry, "num_layers", lambda name: layers if known else None)
    whole = batch.Batch({"02": NOTEBOOKS["02"]}, {}, SMOKE)
    tried, progress = [], batch.Progress({})

    def execute(launch):
        tried.append(launch.job)
        known.append(launch.job)
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
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(["--profile", "nope", "--engine", engine]) == 2
    assert os.environ["OMP_NUM_THREADS"] == "3"
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert main(["--profile", "nope", "--engine", engine]) == 2
    assert os.environ["OMP_NUM_THREADS"] == threads


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


KINDS = ("02", "03", "12", "14")  # scores, healings of several lengths, damage, states, maps


@pytest.mark.real
def test_ray_gives_the_tables_of_the_serial_engine(tmp_path):
    """In empty folders, with jobs of every kind: the same CSVs."""
    command = [sys.executable, "-m", "replication", "--profile", "smoke", "--only", *KINDS]
    command.append("--engine")
    keys = []
    for engine in ("local", "ray"):
        environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path / engine)}
        done = subprocess.run(
            [*command, engine], env=environment, cwd=paths.ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        keys.append({file.name for file in tmp_path.glob(f"{engine}/data/results/s*/*/*.json")})
    assert keys[0] == keys[1] and keys[0]
    tables = list((tmp_path / "local/figures/smoke").glob("*.csv"))
    assert len(tables) > 8
    for table in (table for table in tables if table.stem not in TIMED):
        again = tmp_path / "ray/figures/smoke" / table.name
        assert again.read_bytes() == table.read_bytes(), table.name
