"""Faults of processes: killed jobs and runners, no memory, two at the same work."""

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path

from benchmarks.faults import Fault, toys


def job_killed(folder: Path) -> str:
    runner = toys.start(folder, "a", "slow", "b")
    toys.until(lambda: len(toys.lines(folder)) == 2)
    os.kill(int(toys.lines(folder)[1].split()[1]), signal.SIGKILL)
    status, printed = toys.finish(runner)
    assert status == 1 and toys.row(printed, "slow").startswith("killed "), printed
    assert all(toys.row(printed, f" {name}-map").startswith("ok ") for name in "ab"), printed
    kept = {file.name for file in folder.glob("output/data/results/jobs/*.log")}
    assert kept == {"a-map.log", "slow-map.log", "b-map.log"}, kept
    table = (folder / "output/figures/smoke-a-slow-b/figure_toy.csv").read_text()
    assert "slow,,not measured" in table and "b,1,ok" in table, table
    return "killed; the others ok and drawn; exit 1"


def second_runner(folder: Path) -> str:
    first = toys.start(folder, "slow", "b")
    toys.until(lambda: toys.lines(folder))
    status, printed = toys.finish(toys.start(folder, "b"))
    assert status == 2 and len(printed.strip().splitlines()) == 1, printed
    assert f"(pid {first.pid} on " in printed, printed
    ended = end(folder, first, signal.SIGINT)
    status, again = toys.finish(toys.start(folder, "b"))
    assert status == 0, again
    return f"exit 2: “{printed.strip()[:22]}… pid {first.pid} …”; the first: {ended}; then free"


def terminated(folder: Path) -> str:
    runner = toys.start(folder, "slow", "b")
    toys.until(lambda: toys.lines(folder))
    return end(folder, runner, signal.SIGTERM)


def end(folder: Path, runner: subprocess.Popen, number: int) -> str:
    """Send a signal to a runner whose job runs; no process may be left."""
    assert len(toys.processes(folder)) >= 2
    runner.send_signal(number)
    status, printed = toys.finish(runner)
    toys.until(lambda: not toys.processes(folder), 5)
    assert status == 130 and printed.strip().endswith("resumes from here."), printed
    return "exit 130, no process left"


def runner_killed(folder: Path) -> str:
    runner = toys.start(folder, "slow", "b")
    toys.until(lambda: toys.lines(folder))
    runner.kill()
    start = time.monotonic()
    runner.communicate()
    toys.until(lambda: not toys.processes(folder), 10)
    return f"its job ended by itself after {time.monotonic() - start:.1f} s"


def out_of_memory(folder: Path) -> str:
    status, printed = toys.finish(toys.start(folder, "memory", "b"))
    assert status == 1 and toys.row(printed, "memory").startswith("oom "), printed
    assert toys.row(printed, " b-map").startswith("ok "), printed
    return f"oom: {toys.row(printed, 'memory').split('-map: ')[1][:50]}…; the other ok"


def two_healings(folder: Path) -> str:
    """Two processes are to heal the same block into the same folder at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_heal, [folder / "adapter"] * 2)
    assert first[1] == second[1], (first, second)
    assert {first[0], second[0]} == {True, False}, (first, second)
    return "one trained, the other waited and took what it left"


def _heal(folder: Path) -> tuple[bool, list[float]]:
    """Whether this process trained, and the losses it got."""
    from lib.blocks import Block
    from lib.healing import training
    from lib.models import loading
    from lib.pruning import dropped
    from replication import profiles

    trained = []
    real = training._train
    training._train = lambda *args: trained.append(1) or real(*args)
    recipe = profiles.recipe("tiny-random", profiles.get("smoke"))
    model, tokenizer = loading.load("tiny-random", dtype="float32", device="cpu")
    with dropped(model, Block(2, 2)):
        healed = training.heal(model, tokenizer, recipe, folder)
    return bool(trained), healed.losses


QUICK = [
    Fault("a job killed -9", "that job alone fails, logs kept", job_killed),
    Fault(
        "second runner, then Ctrl-C on the first",
        "one sentence that names the first; exit 130, no process left",
        second_runner,
    ),
]
SLOW = [
    Fault("SIGTERM, as from Slurm", "exit 130, no process left", terminated),
    Fault("runner killed -9", "no job stays behind", runner_killed),
    Fault("no memory (RLIMIT_AS)", "oom, others go on", out_of_memory),
    Fault("two processes, one healing", "the second waits for it", two_healings),
]
