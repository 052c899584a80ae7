"""Faults of nodes: a Ray cluster of three nodes with fake GPUs on this machine.

`python -m benchmarks.faults.nodes FOLDER lost|dying` runs toy jobs there and prints what it saw.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.faults import Fault, kernel, toys
from replication import profiles
from replication.run import batch
from replication.run.execution import Launch, Outcome
from replication.run.jobs import Job


def node_lost(folder: Path) -> str:
    seen = _run(folder, "lost")
    assert seen["statuses"] == {"ok": 24}, seen
    measured = [line.split() for line in toys.lines(folder)]
    devices = Counter(device for _, _, device in measured)
    assert all(device in ("0", "1") for device in devices), devices
    ends = Counter(toys.lines(folder, "ended"))
    assert len(ends) == 24, ends
    repeated = [name for name in seen["ended_before"] if ends[name] != 1]
    assert len(seen["ended_before"]) >= 6 and not repeated, seen
    again = len(measured) - 24
    return (
        f"24 ok, each saw one device; {len(seen['ended_before'])} had ended before, none of them "
        f"repeated; {again} measured again"
    )


def worker_dies(folder: Path) -> str:
    seen = _run(folder, "dying")
    assert seen["statuses"] == {"ok": 5, "lost": 1}, seen
    tries = toys.lines(folder, "tried").count("dies")
    assert tries == 3 and "3 times" in seen["reason"], (tries, seen)
    return f"lost after {tries} tries, reported; the 5 others ok"


def interrupted(folder: Path) -> str:
    runner = toys.start(folder, "slow", "b", "--engine=ray")
    toys.until(lambda: any("slow" in line for line in toys.lines(folder)), 300)
    runner.send_signal(signal.SIGINT)
    status, printed = toys.finish(runner)
    toys.until(lambda: not toys.processes(folder / "output"), 10)
    assert status == 130 and printed.strip().endswith("resumes from here."), (status, printed)
    return "exit 130; no runner, worker or kernel is left"


# ---- in a process of its own -------------------------------------------------------------------


def execute(launch: Launch) -> Outcome:
    """A toy job in its worker."""
    name = launch.job.removesuffix("-map")
    kernel.note("tried", name)
    if name == "dies":
        os.kill(os.getpid(), 9)
    outcome = toys.attempt(launch)
    kernel.note("ended", name)
    return outcome


def _run(folder: Path, what: str) -> dict:
    status, printed = toys.finish(toys.start(folder, what, module="benchmarks.faults.nodes"))
    assert status == 0, printed
    return json.loads(printed[printed.index('{"') :].splitlines()[0])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults.nodes", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=("lost", "dying"))
    chosen = parser.parse_args(argv)
    folder, what = chosen.folder, chosen.what

    from ray.cluster_utils import Cluster

    from replication.run.cluster import Ray

    names = [f"job{n}" for n in range(24)] if what == "lost" else ["dies", *"abcde"]
    models = toys.set_up(folder, names)
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # its GPUs are made up, and none may be hidden
    store = 80 * 2**20  # bytes
    head = {"num_cpus": 1, "num_gpus": 2, "object_store_memory": store, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, num_gpus=2, object_store_memory=store) for _ in range(2)]
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    os.environ["OMP_NUM_THREADS"] = "1"
    outcomes, before = {}, []
    command = (*toys.command(folder), "--profile", "smoke", "--models", *models)
    whole = batch.Batch({}, {}, profiles.get("smoke"), command=command)
    jobs = [Job(f"{Path(model).name}-map", model, "01") for model in models]
    engine = Ray(execute)
    for job, outcome in batch.in_order(jobs, engine, whole.launch):
        outcomes[job.model] = outcome
        before.append(Path(job.model).name)
        if what == "lost" and len(outcomes) == 6:
            time.sleep(1)  # its two workers are in the middle of a job
            cluster.remove_node(nodes[0], allow_graceful=False)
            ended_before = list(before)
    engine.close()
    cluster.shutdown()
    statuses = Counter(outcome.status for outcome in outcomes.values())
    reason = next((o.reason for o in outcomes.values() if o.status != "ok"), "")
    seen = {"statuses": statuses, "reason": reason}
    print(json.dumps(seen | ({"ended_before": ended_before} if what == "lost" else {})))
    return 0


QUICK = []
SLOW = [
    Fault("3 nodes, 24 jobs, one node killed", "all end, none twice, one GPU each", node_lost),
    Fault("Ctrl-C on Ray", "exit 130, no process left", interrupted),
    Fault("a job whose worker always dies", "reported after its retries", worker_dies),
]

if __name__ == "__main__":
    sys.exit(main())
