"""Faults of nodes: a Ray cluster of three nodes with made-up GPUs on this machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from benchmarks.faults import Fault, toys

NODE = {"num_cpus": 1, "num_gpus": 2, "object_store_memory": 80 * 2**20}


@contextmanager
def _cluster(folder: Path) -> Iterator[tuple]:
    """A cluster whose workers know the toys of `folder`: the head, and two nodes."""
    from ray.cluster_utils import Cluster

    with mock.patch.dict(os.environ, toys.environment(folder) | {"OMP_NUM_THREADS": "1"}):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # none of its GPUs may be hidden
        head = NODE | {"include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = [cluster.add_node(**NODE) for _ in range(2)]
        cluster.wait_for_nodes()
        try:
            yield cluster, nodes
        finally:
            cluster.shutdown()


def node_lost(folder: Path) -> str:
    names = [f"job{n}" for n in range(8)]
    with _cluster(folder) as (cluster, nodes):
        runner = toys.start(folder, *names, "--engine=ray", RAY_ADDRESS=cluster.address)
        toys.until(lambda: len(toys.lines(folder, "ended")) >= 4, 300)
        before = toys.lines(folder, "ended")
        cluster.remove_node(nodes[0], allow_graceful=False)
        status, printed = toys.finish(runner)
    assert status == 0, printed
    measured = [line.split() for line in toys.lines(folder)]
    assert {name for name, *_ in measured} == {*names}, measured
    assert {device for *_, device in measured} <= {"0", "1"}, measured
    tried = toys.lines(folder, "tried")
    assert all(tried.count(name) == 1 for name in before), (before, tried)
    again = len(tried) - len(names)
    return f"8 ok, each saw one device; {len(before)} done before, not repeated; {again} again"


def worker_dies(folder: Path) -> str:
    with _cluster(folder) as (cluster, _):
        runner = toys.start(folder, "dies", *"ab", "--engine=ray", RAY_ADDRESS=cluster.address)
        status, printed = toys.finish(runner)
    tries = toys.lines(folder, "tried").count("dies")
    assert status == 1 and tries == 3, (tries, printed)
    assert "lost " in toys.row(printed, "dies-map") and "3 times" in printed, printed
    assert all(toys.row(printed, f" {name}-map").startswith("ok ") for name in "ab"), printed
    return f"lost after {tries} tries, reported; the 2 others ok"


def interrupted(folder: Path) -> str:
    runner = toys.start(folder, "slow", "b", "--engine=ray")
    toys.until(lambda: any("slow" in line for line in toys.lines(folder)), 300)
    runner.send_signal(signal.SIGINT)
    status, printed = toys.finish(runner)
    toys.until(lambda: not toys.processes(folder), 10)
    assert status == 130 and printed.strip().endswith("resumes from here."), (status, printed)
    return "exit 130; no runner, worker or kernel is left"


SLOW = [
    Fault("3 nodes, 8 jobs, one node killed", "all end, none twice, one GPU each", node_lost),
    Fault("Ctrl-C on Ray", "exit 130, no process left", interrupted),
    Fault("a job whose worker always dies", "reported after its retries", worker_dies),
]
