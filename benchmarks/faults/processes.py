"""Faults of processes: killed kernels and runners, no memory, no time, a second runner."""

import os
import signal
import time
from pathlib import Path
from unittest import mock

import papermill
import psutil

from benchmarks.faults import Fault, toys
from replication import paths, profiles
from replication.run import batch
from replication.run.execution import Launch, Outcome, attempt
from replication.run.jobs import Job


def job_killed(folder: Path) -> str:
    runner = toys.start(folder, "a", "slow", "b")
    toys.until(lambda: len(toys.lines(folder)) == 2)
    toys.kill(int(toys.lines(folder)[1].split()[1]))
    status, printed = toys.finish(runner)
    assert status == 1 and "killed" in _row(printed, "slow"), printed
    assert all(_row(printed, name).startswith("ok ") for name in (" a-map", " b-map")), printed
    kept = {file.name for file in folder.glob("output/data/results/jobs/*.log")}
    assert kept == {"a-map.log", "slow-map.log", "b-map.log"}, kept
    table = (folder / "output/figures/smoke-a-slow-b/figure_toy.csv").read_text()
    assert "slow,,not measured" in table and "b,1,ok" in table, table
    return "killed; the others ok and drawn; exit 1"


def out_of_memory(folder: Path, name: str) -> str:
    status, printed = toys.finish(toys.start(folder, name, "b"))
    assert status == 1 and _row(printed, name).startswith("oom "), printed
    assert _row(printed, " b-map").startswith("ok "), printed
    return f"oom: {_row(printed, name).split('-map: ')[1][:50]}…; the other ok"


def time_limit(folder: Path) -> str:
    runner = toys.start(folder, "slow", "b", "--time-limit=0.2")
    status, printed = toys.finish(runner)
    assert status == 1 and _row(printed, "slow").startswith("time limit "), printed
    assert _row(printed, " b-map").startswith("ok ") and not toys.processes(folder / "output"), (
        printed
    )
    return "ended after 12 s, no process left; the other ok"


def second_runner(folder: Path) -> str:
    first = toys.start(folder, "slow")
    toys.until(lambda: toys.lines(folder))
    status, printed = toys.finish(toys.start(folder, "b"))
    first.send_signal(signal.SIGTERM)
    assert status == 2 and len(printed.strip().splitlines()) == 1, printed
    assert f"pid {first.pid}," in printed and "command" in printed, printed
    toys.finish(first)
    status, again = toys.finish(toys.start(folder, "b"))
    assert status == 0, again
    return f"exit 2: “{printed.strip()[:22]}… pid {first.pid}, …”; afterwards free again"


def interrupted(folder: Path, number: int) -> str:
    runner = toys.start(folder, "slow", "b")
    toys.until(lambda: toys.lines(folder))
    assert len(toys.processes(folder / "output")) >= 2
    runner.send_signal(number)
    start = time.monotonic()
    status, printed = toys.finish(runner)
    seconds = time.monotonic() - start
    toys.until(lambda: not toys.processes(folder / "output"), 2)
    assert status == 130 and printed.strip().endswith("resumes from here."), printed
    return f"exit 130 after {seconds:.1f} s, no process left"


def runner_killed(folder: Path) -> str:
    runner = toys.start(folder, "slow", "b")
    toys.until(lambda: toys.lines(folder))
    toys.kill(runner.pid)
    start = time.monotonic()
    runner.communicate()
    toys.until(lambda: not toys.processes(folder / "output"), 10)
    return f"its job ended by itself after {time.monotonic() - start:.1f} s"


def token(folder: Path) -> str:
    status, printed = toys.finish(toys.start(folder, "token"))
    assert status == 0, printed
    copies = [file for file in folder.rglob("*") if file.is_file()]
    [copy] = folder.glob("output/papermill_runs/*/toy.ipynb")
    assert "logged in with <token>" in copy.read_text(), copy.read_text()
    assert not [f for f in copies if toys.SECRET.encode() in f.read_bytes()]
    assert toys.SECRET not in printed
    return f"“<token>” in the copy, in none of {len(copies)} files, not in the log"


def thousand(folder: Path, count: int = 1000) -> str:
    """A no-op executor; RSS of this process after a fifth of the jobs and at the end."""
    sizes, engine = [], batch.Serial(lambda launch: Outcome("ok"))
    whole = batch.Batch({}, {"PROFILE": "smoke"}, profiles.get("smoke"))
    jobs = [Job(f"job-{n}", "tiny-random", "03") for n in range(count)]
    start = time.monotonic()
    for _, outcome in batch.in_order(jobs, engine, whole.launch):
        assert outcome.status == "ok"
        sizes.append(psutil.Process().memory_info().rss)
    each = (time.monotonic() - start) / count
    grown = (sizes[-1] - sizes[count // 5]) / 2**20
    assert len(sizes) == count and each < 0.05 and grown < 10, (each, grown)
    return f"{1000 * each:.1f} ms a job, {grown:+.1f} MB"


def through_papermill(folder: Path, count: int = 20) -> str:
    inside, sizes, real = [], [], papermill.execute_notebook

    def timed(*args, **kwargs):
        start = time.monotonic()
        try:
            return real(*args, **kwargs)
        finally:
            inside.append(time.monotonic() - start)
            sizes.append(psutil.Process().memory_info().rss)

    before, kernels = (paths.NOTEBOOKS, paths.RUNS, paths.FIGURES), toys.environment(folder)
    models = toys.set_up(folder, [f"m{n}" for n in range(count)])
    paths.RUNS, paths.FIGURES = folder / "papermill_runs", folder / "figures"
    papermill.execute_notebook = timed
    start = time.monotonic()
    try:
        with mock.patch.dict(os.environ, kernels):
            for model in models:
                outcome = attempt(Launch(toys.TOY, {"PROFILE": "smoke", "MODELS": [model]}))
                assert outcome.status == "ok", outcome
    finally:
        papermill.execute_notebook = real
        paths.NOTEBOOKS, paths.RUNS, paths.FIGURES = before
    each = (time.monotonic() - start - sum(inside)) / count
    grown = (sizes[-1] - sizes[count // 4]) / 2**20
    assert each < 0.05 and grown < 20, (each, grown)
    own = sum(inside) / count
    return f"{1000 * each:.1f} ms a notebook beyond papermill's {own:.2f} s, {grown:+.1f} MB"


def _row(printed: str, name: str) -> str:
    """The line of the closing table about job `name`."""
    table = printed[printed.index("status  ") :].splitlines()
    return next(line for line in table if name in line)


QUICK = [
    Fault("a job killed -9", "that job alone fails, logs kept", job_killed),
    Fault("second runner, same results", "one sentence that names the first", second_runner),
    Fault("Ctrl-C", "exit 130, no process left", lambda f: interrupted(f, signal.SIGINT)),
    Fault("a notebook prints the hub token", "it stands in no file", token),
]
SLOW = [
    Fault("time limit reached", "that job alone ends", time_limit),
    Fault("SIGTERM, as from Slurm", "as Ctrl-C", lambda f: interrupted(f, signal.SIGTERM)),
    Fault("runner killed -9", "no job stays behind", runner_killed),
    Fault("no memory (RLIMIT_AS)", "oom, others go on", lambda f: out_of_memory(f, "memory")),
    Fault("torch.cuda.OutOfMemoryError", "oom, others go on", lambda f: out_of_memory(f, "cuda")),
    Fault("1,000 jobs, no-op executor", "< 50 ms a job, memory flat", thousand),
    Fault("20 notebooks through papermill", "< 50 ms beyond papermill's own", through_papermill),
]
