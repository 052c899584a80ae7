"""The order of jobs under any engine, and what Ray is asked for; with Ray itself where `real`."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.faults import nodes
from lib.models import registry
from replication import paths, profiles, results
from replication.measure import distance_maps
from replication.run import batch, execution, jobs
from replication.run.execution import Launch, Outcome
from replication.run.jobs import Job
from replication.run.notebooks import NOTEBOOKS

TIMED = {"figure_cost", "figure_repair", "figure_repair_cost"}  # figures of seconds
LATENCY = (b"12b,", b"12c,")


class Backwards(batch.Serial):
    """An engine in which what was submitted last ends first."""

    def ended(self):
        launch = self.queue.pop()
        return launch, self.execute(launch)


SMOKE = profiles.get("smoke")
PARAMETERS = {"PROFILE": "smoke"}


def batch_of(*numbers: str, profile=SMOKE, parameters=PARAMETERS) -> batch.Batch:
    """Notebooks that draw one figure each."""
    notebooks = {
        number: replace(NOTEBOOKS[number], file=number, figures=("drawn",)) for number in numbers
    }
    return batch.Batch(notebooks, parameters, profile)


def launch_of(job: Job) -> Launch:
    return Launch(None, {"JOB": job}, f"{job}")


def leave(launch: Launch, status: str = "ok") -> None:
    """What an execution that ran to its end leaves."""
    table = launch.figures / "drawn.csv"
    for folder in (launch.figures, launch.folder):
        folder.mkdir(parents=True, exist_ok=True)
    table.write_text(f"model,value,status\ntiny,{1 if status == 'ok' else ''},{status}\n")
    (launch.folder / f"{launch.notebook.file}.ipynb").touch()


ALL = [
    Job(number, model, size)
    for number, sizes in {"01": [None], "02": [None], "03": [1, 2], "06": [2], "07": [2]}.items()
    for model in ("a/b", "c/d")
    for size in sizes
]


@pytest.mark.parametrize("engine", [batch.Serial, Backwards])
def test_a_job_starts_after_those_of_its_model_that_it_builds_on(engine):
    order = []

    def execute(launch):
        order.append(launch.parameters["JOB"])
        return Outcome("ok")

    ended = [job for job, _ in batch.in_order(ALL, engine(execute), launch_of)]
    assert sorted(ended, key=ALL.index) == ALL and ended == order
    for place, job in enumerate(order):
        later = order[place + 1 :]
        assert not any(other.model == job.model and other.wave < job.wave for other in later)


@pytest.mark.parametrize("engine", [batch.Serial, Backwards])
def test_a_model_that_cannot_be_had_is_tried_once(engine):
    tried = []

    def execute(launch):
        job = launch.parameters["JOB"]
        tried.append(job)
        return Outcome("skipped: gated", "is gated") if job.model == "a/b" else Outcome("ok")

    ended = dict(batch.in_order(ALL, engine(execute), launch_of))
    assert set(ended) == set(ALL)
    assert [job for job in tried if job.model == "a/b"] == [Job("01", "a/b")]
    assert {ended[job].status for job in ALL if job.model == "a/b"} == {"skipped: gated"}
    assert {ended[job].status for job in ALL if job.model == "c/d"} == {"ok"}


def test_a_failure_changes_no_other_job_and_what_is_done_is_not_repeated(output):
    """After a failure a notebook only draws, where it is one that jobs measure for."""
    numbers = ("01", "02", "03", "09")
    parts = jobs.jobs(SMOKE, numbers)
    tried, fails, read_only = [], {"02"}, {}

    def execute(launch):
        tried.append(launch.shard)
        read_only[launch.notebook.file] = launch.read_only
        if launch.shard[:2] in fails:
            return Outcome("failed", "by intention")
        leave(launch)
        return Outcome("ok", seconds=2.0)

    whole = batch_of(*numbers)
    outcomes = batch.run(whole, parts, batch.Serial(execute))
    assert [name for name, end in outcomes.items() if end.status != "ok"] == ["02 tiny-random"]
    assert len(tried) == len(parts) + 4
    assert read_only == {"01": True, "02": True, "03": True, "09": False}
    first, fails, tried = tried, set(), []
    outcomes = batch.run(whole, parts, batch.Serial(execute))
    assert {end.status for end in outcomes.values()} == {"ok"}
    assert tried == [shard for shard in first if shard[:2] == "02"] + [""] * 4
    assert outcomes["01 tiny-random"] == batch.DONE_BEFORE


def test_a_job_is_done_once_it_has_left_everything(output):
    whole, job = batch_of("03"), Job("03", "tiny-random", 2)
    assert not whole.done(job)
    leave(whole.launch(job))
    assert whole.done(job)
    leave(whole.launch(job), "oom")  # its copy is there, but a point is missing
    assert not whole.done(job)
    leave(whole.launch(job), "diverged")  # which is a finding
    assert whole.done(job)
    shutil.rmtree(paths.RESULTS)
    assert not whole.done(job)
    leave(whole.launch(Job("03", "tiny-random")))  # all depths
    assert whole.done(job) and whole.done(Job("03", "tiny-random", 4))


def test_a_shard_is_a_folder_of_its_own(monkeypatch):
    monkeypatch.setattr(registry, "resolve", lambda name: registry.Source("folder", name, "1"))
    names = ["a/b", "a-b", "../../b", "/b", "ü" * 300, "b"]
    jobs = [Job("03", name, size) for name in names for size in (1, 2)]
    shards = [batch_of("03").launch(job).shard for job in jobs]
    assert len(set(shards)) == len(shards)
    assert all("/" not in shard and len(shard) < 100 for shard in shards)


def test_a_job_is_called_by_what_it_measures(output, monkeypatch):
    job, models = Job("03", "tiny-random", 2), ["tiny-random", "nobody/absent"]
    whole = batch_of("03")
    same = batch_of(  # for another model as well
        "03", profile=profiles.get("smoke", models), parameters=PARAMETERS | {"MODELS": models}
    )
    in_fp16 = batch_of("03", parameters=PARAMETERS | {"DTYPE": "float16"})
    shorter = batch_of("03", profile=profiles.get("smoke", steps=1))
    shards = [run.launch(job).shard for run in (whole, same, in_fp16, shorter)]
    shards.append(whole.launch(Job("03", "tiny-random", 4)).shard)
    monkeypatch.setitem(results.VERSIONS, "scores", 99)
    shards.append(whole.launch(job).shard)
    assert shards[0] == shards[1] and len(set(shards)) == 5


def test_a_job_measures_what_its_run_wants(output, monkeypatch):
    """Its kernel sees one model, and that model has the place that it has in the whole run."""
    distances = distance_maps.of_model("tiny-random", SMOKE)
    monkeypatch.setattr(registry, "resolve", lambda name: registry.Source("folder", name, "1"))
    shape = registry.MODELS["tiny-random"].shape
    monkeypatch.setattr(registry, "num_layers", lambda name: shape.num_layers)
    monkeypatch.setattr(registry, "shape", lambda name: shape)
    names, notebooks = ["first", "second"], ["02", "03", "05", "06", "07", "10", "11", "14"]
    few = replace(SMOKE, healed_names=("first",), study_names=("second",), other_steps=1)
    monkeypatch.setitem(profiles.PROFILES, "smoke", few)
    whole = profiles.get("smoke", names)
    parts = jobs.by_model(jobs.jobs(whole, notebooks))
    assert {job.model for job in parts} == set(names)
    for job in parts:
        launch = batch_of(*notebooks, profile=whole).launch(job)
        with execution._environment(launch):
            mine = profiles.get("smoke", launch.parameters["MODELS"])
        of_run, of_job = (job.requests(distances, profile) for profile in (whole, mine))
        assert [r.params for r in of_run] == [r.params for r in of_job], job
        assert mine.main_model == job.model
        lone = profiles.get("smoke", [job.model])
        assert lone.heals_fully(job.model) and lone.study_models == lone.ablation_models
    second = Job("03", "second")
    apart = [batch_of("03", profile=p).launch(second).shard for p in (whole, lone)]
    assert second.model == lone.models[0] and apart[0] != apart[1]


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
def test_ray_gives_the_tables_of_the_serial_engine(tmp_path):
    """Every notebook of `smoke` in an empty folder, serially and on Ray: the same CSVs."""
    command = [sys.executable, "-m", "replication", "--profile", "smoke", "--engine"]
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
    assert len(tables) > 10
    for table in (table for table in tables if table.stem not in TIMED):
        again = tmp_path / "ray/figures/smoke" / table.name
        assert untimed(again) == untimed(table), table.name


def untimed(table: Path) -> list[bytes]:
    """The lines of a CSV; of the claims, not those about latency."""
    return [line for line in table.read_bytes().splitlines() if not line.startswith(LATENCY)]
