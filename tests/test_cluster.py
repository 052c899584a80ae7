"""The order of jobs under any engine, and what Ray is asked for; with Ray itself where `real`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults import nodes
from lib import paths, profiles, results
from lib.measure import experiments
from lib.measure.experiments import Job
from lib.run import batch
from lib.run.execution import Launch, Outcome

ENGINES = ("local", "ray")
TIMED = {"figure_cost", "figure_heal_where"}  # figures of seconds
LATENCY = (b"12b,", b"12c,")


class Backwards(batch.Serial):
    """An engine in which what was submitted last ends first."""

    def ended(self):
        launch = self.queue.pop()
        return launch, self.execute(launch)


def launch_of(job: Job) -> Launch:
    return Launch(None, {"JOB": job}, batch.shard(job))


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
    smoke = profiles.get("smoke")
    parts = experiments.jobs(smoke, ["01", "02", "03", "06"])
    tried, fails = [], {"02"}

    def execute(launch):
        tried.append(launch.shard)
        failed = launch.shard[:2] in fails
        return Outcome("failed", "by intention") if failed else Outcome("ok", seconds=2.0)

    names = {number: batch.Notebook(number, (), 0) for number in ("01", "02", "03", "06")}
    whole = batch.Batch(names, {"PROFILE": "smoke"}, smoke)
    found = batch.run(whole, parts, batch.Serial(execute))
    assert [name for name, end in found.items() if end.status != "ok"] == ["02 tiny-random"]
    assert len(tried) == len(parts) + 4
    first, fails, tried = tried, set(), []
    found = batch.run(whole, parts, batch.Serial(execute))
    assert {end.status for end in found.values()} == {"ok"}
    assert tried == [shard for shard in first if shard[:2] == "02"] + [""] * 4
    record = batch.record(parts[0], smoke, {"PROFILE": "smoke"})
    assert record["status"] == "ok" and record["seconds"] == 2.0
    assert batch.record(parts[0], profiles.get("smoke", limit=2), {"PROFILE": "smoke"}) is None


def test_a_whole_notebook_counts_as_its_jobs(output):
    """One model on one machine: no jobs run, but those that a cluster would run are known done."""
    smoke, told = profiles.get("smoke"), {"PROFILE": "smoke"}
    names = {number: batch.Notebook(number, (), 0) for number in ("01", "03", "04")}
    ends = {"01": Outcome("ok", "", 3.0), "03": Outcome("failed"), "04": Outcome("ok")}
    engine = batch.Serial(lambda launch: ends[launch.notebook.file])
    batch.run(batch.Batch(names, told, smoke), [], engine)
    known = {job: batch.record(job, smoke, told) for job in experiments.jobs(smoke, names)}
    assert {job.notebook: bool(record) for job, record in known.items()} == {
        "01": True,
        "03": False,
    }
    ends["03"] = Outcome("ok", "", 8.0)
    batch.run(batch.Batch(names, told, smoke), [], engine)
    assert all(batch.record(job, smoke, told)["seconds"] == 8.0 for job in known if job.size)


def test_after_a_failure_the_notebooks_of_the_jobs_only_draw(output):
    drawn = {}

    def execute(launch):
        drawn[launch.notebook.file] = launch.draws_only
        return Outcome("failed" if launch.shard else "ok")

    smoke = profiles.get("smoke")
    names = {number: batch.Notebook(number, (), 0) for number in ("01", "04", "09")}
    batch.run(batch.Batch(names, {}, smoke), [Job("01", "tiny-random")], batch.Serial(execute))
    assert drawn == {"01": True, "04": True, "09": False}


def test_a_shard_is_a_folder_of_its_own():
    names = ["a/b", "a-b", "../../b", "/b", "ü" * 300, "b"]
    found = [batch.shard(Job("03", name, size)) for name in names for size in (1, 2)]
    assert len(set(found)) == len(found)
    assert all("/" not in name and len(name) < 100 for name in found)


def test_every_job_record_is_keyed_by_what_it_measures(output, monkeypatch):
    job, smoke = Job("03", "tiny-random", 2), profiles.get("smoke")
    told = {"PROFILE": "smoke"}
    keys = {results.key("job", batch.record_params(job, smoke, told))}
    keys.add(results.key("job", batch.record_params(Job("03", "tiny-random", 4), smoke, told)))
    keys.add(results.key("job", batch.record_params(job, profiles.get("smoke", steps=1), told)))
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    keys.add(results.key("job", batch.record_params(job, smoke, told)))
    monkeypatch.setitem(results.VERSIONS, "scores", 99)
    keys.add(results.key("job", batch.record_params(job, smoke, told)))
    assert len(keys) == 5
    more = profiles.get("smoke", models=["tiny-random", "nobody/absent"])
    same = batch.record_params(job, more, told | {"MODELS": ["tiny-random", "nobody/absent"]})
    assert results.key("job", same) in keys


@pytest.mark.parametrize(
    "nodes, asked",
    [
        ([{"GPU": 8, "CPU": 64}], {"num_gpus": 1, "num_cpus": 1}),
        ([{"CPU": 2}, {"CPU": 8}], {"num_cpus": 4}),
        ([{"CPU": 2}], {"num_cpus": 2}),
    ],
)
def test_what_a_job_takes_of_a_node(monkeypatch, nodes, asked):
    cluster = pytest.importorskip("lib.run.cluster")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert cluster.resources([{"Resources": node} for node in nodes]) == asked


@pytest.mark.real
@pytest.mark.parametrize("fault", nodes.SLOW, ids=lambda fault: fault.fault)
def test_faults_of_nodes(tmp_path, fault):
    assert fault.check(tmp_path)


@pytest.mark.real
def test_ray_gives_the_tables_of_the_serial_engine(tmp_path):
    """Every notebook of `smoke` in an empty folder, serially and on Ray: the same CSVs."""
    for engine in ENGINES:
        command = [sys.executable, "-m", "lib.run", "--profile", "smoke", "--engine", engine]
        environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path / engine)}
        done = subprocess.run(
            command, env=environment, cwd=paths.ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    names = [{f.name for f in tmp_path.glob(f"{e}/data/results/s*/*/*.json")} for e in ENGINES]
    assert names[0] == names[1] and names[0], "keys differ"
    tables = list((tmp_path / "local/figures/smoke").glob("*.csv"))
    assert len(tables) > 10
    for table in (table for table in tables if table.stem not in TIMED):
        again = tmp_path / "ray/figures/smoke" / table.name
        assert untimed(again) == untimed(table), table.name


def untimed(table: Path) -> list[bytes]:
    """The lines of a CSV; of the claims, not those about latency."""
    return [line for line in table.read_bytes().splitlines() if not line.startswith(LATENCY)]
