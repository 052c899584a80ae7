"""What Ray is asked for, and Ray itself where `real`."""

import pytest
from conftest import replicate

from replication.run.notebooks import NOTEBOOKS


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
def test_ray_gives_the_tables_of_one_machine(smoke_run, tmp_path):
    """In an empty folder, with maps, scores and healings of several lengths: the same CSVs."""
    numbers = ("02", "03")
    done = replicate(tmp_path, "--profile", "smoke", "--engine", "ray", "--only", *numbers)
    assert done.returncode == 0, done.stdout + done.stderr
    for number in numbers:
        for name in NOTEBOOKS[number].figures:
            file = f"figures/smoke/{name}.csv"
            assert (tmp_path / file).read_bytes() == (smoke_run / file).read_bytes(), name
