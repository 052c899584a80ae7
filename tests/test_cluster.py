"""What Ray is asked for, and Ray itself where `real`."""

import os
import signal
import time
from threading import Thread

import pytest
from conftest import replicate

from replication.run.execution import Launch, Outcome
from replication.run.notebooks import NOTEBOOKS

NODE = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20}  # a GPU that is made up


@pytest.mark.parametrize(
    "nodes, resources",
    [
        ([{"GPU": 8, "CPU": 64}], {"num_gpus": 1, "num_cpus": 8}),
        ([{"CPU": 2}, {"CPU": 8}], {"num_gpus": 0, "num_cpus": 2}),
    ],
)
def test_what_a_job_takes_of_a_node(nodes, resources):
    cluster = pytest.importorskip("replication.run.cluster")
    assert cluster.resources([{"Resources": node} for node in nodes]) == resources


@pytest.mark.real
def test_a_job_outlives_its_node(tmp_path, monkeypatch):
    """It runs again on another one; a job whose worker always dies ends as lost."""
    cluster = pytest.importorskip("replication.run.cluster")
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # none of its GPUs may be hidden
    nodes = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    lost = nodes.add_node(**NODE)
    nodes.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    go, log = tmp_path / "go", tmp_path / "log"
    log.touch()

    def execute(launch):
        with log.open("a") as tries:
            tries.write(f"{launch.job}\n")
        if launch.job == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        while not go.exists():
            time.sleep(0.05)
        return Outcome("ok")

    def lose_a_node():
        while len(log.read_text()) < len("a\nb\n"):
            time.sleep(0.05)
        nodes.remove_node(lost, allow_graceful=False)
        go.touch()

    Thread(target=lose_a_node).start()
    launches = [Launch(job=job) for job in ("a", "b", "c", "dies")]
    try:
        ends = {launch.job: end.status for launch, end in cluster.on_ray(launches, execute)}
    finally:
        cluster.ray.shutdown()
        nodes.shutdown()
    assert ends == {"a": "ok", "b": "ok", "c": "ok", "dies": "lost"}
    assert sorted(map(log.read_text().split().count, ends)) == [1, 1, 2, 3]


@pytest.mark.real
def test_ray_gives_the_tables_of_one_machine(smoke_run, tmp_path):
    """In an empty folder, with maps, scores and healings of several lengths: the same CSVs."""
    numbers = ("02", "03")
    done = replicate(tmp_path, "--profile", "smoke", "--engine", "ray", "--only", *numbers)
    assert done.returncode == 0, done.stdout + done.stderr
    for number in numbers:
        for name in NOTEBOOKS[number].figures:
            file = f"figures/smoke/{name}.csv"
            assert (tmp_path / file).read_bytes() == (smoke_run / file).read_bytes(), name
