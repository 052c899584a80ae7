"""What Ray is asked for, and Ray itself where `real`."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import psutil
import pytest
from conftest import replicate

from replication import paths
from replication.run import cluster
from replication.run.execution import Launch
from replication.run.executors import MachineFailed
from replication.run.notebooks import NOTEBOOKS

RUN = ("--profile", "smoke", "--engine", "ray", "--only")
HOST = "127.0.0.1"
LOOPBACK = {HOST, "::1", "::ffff:127.0.0.1"}
WRONG = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": 64 * "0"}
CLIENT = "import ray; ray.init(log_to_driver=False); print(len(ray.nodes()), 'node')"


def wait_for(value):
    """Return what `value` returns as soon as it is something."""
    end = time.monotonic() + 100
    while not (done := value()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return done


@pytest.mark.parametrize(
    "nodes, resources",
    [
        ([{"GPU": 8, "CPU": 64}], {"num_gpus": 1, "num_cpus": 8}),
        ([{"CPU": 2}, {"CPU": 8}], {"num_gpus": 0, "num_cpus": 2}),
    ],
)
def test_what_a_job_takes_of_a_node(nodes, resources):
    """One that was lost, which Ray lists without resources, gives nothing."""
    nodes = [{"Resources": node, "Alive": bool(node)} for node in (*nodes, {})]
    assert cluster.resources(nodes) == resources


@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
@pytest.mark.parametrize("mode", [None, "disabled"])
def test_a_cluster_of_ones_own_has_a_token_and_no_port_outside(address, mode, monkeypatch):
    """That of others is asked with a token, unless the environment says that it has none."""
    seen, at_term = {}, signal.getsignal(signal.SIGTERM)

    def init(*_, **__):
        seen.update(os.environ)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    ray = SimpleNamespace(init=init, exceptions=None)
    monkeypatch.setitem(sys.modules, "ray", ray)
    given = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": mode, "RAY_AUTH_TOKEN": "theirs"}
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given = {name: value for name, value in given.items() if value}
    with mock.patch.dict(os.environ, others | given, clear=True):
        cluster.connect.__wrapped__()
    after = signal.signal(signal.SIGTERM, at_term)
    assert after == at_term  # so that a run that Slurm ends says that it can be resumed
    own = address is None
    assert seen["RAY_AUTH_MODE"] == ("token" if own else mode or "token")
    assert (len(seen["RAY_AUTH_TOKEN"]) >= 32) == own
    assert (seen.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0") == own


@pytest.mark.real
def test_ray_gives_the_tables_of_one_machine(smoke_run, tmp_path):
    """In an empty folder, with maps, scores and healings of several lengths: the same CSVs."""
    numbers = ("02", "03")
    done = replicate(tmp_path, *RUN, *numbers)
    assert done.returncode == 0, done.stdout + done.stderr
    for number in numbers:
        for name in NOTEBOOKS[number].figures:
            file = f"figures/smoke/{name}.csv"
            assert (tmp_path / file).read_bytes() == (smoke_run / file).read_bytes(), name


def processes(run, word: str = "") -> list[psutil.Process]:
    """Return the processes of a run that have `word` in their command."""
    below = [one for one in run.children(recursive=True) if one.status() != "zombie"]
    return [one for one in below if word in " ".join(one.cmdline())]


def next_try(run, *before: psutil.Process) -> psutil.Process:
    """Return the process of the run's job, not one `before`, as soon as it works."""
    return wait_for(lambda: [one for one in processes(run, "--job") if one not in before])[0]


@pytest.fixture
def run(tmp_path):
    """A run of one job under Ray, in an environment that says nothing against open ports."""
    pytest.importorskip("ray")
    command = [sys.executable, "-m", "replication", *RUN, "01"]
    environment = os.environ | {"DEEPER_LAYERS_OUTPUT": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    run = psutil.Popen(command, cwd=paths.ROOT, env=environment, text=True, stdout=subprocess.PIPE)
    yield run
    if run.poll() is None:  # the test has failed
        for process in [*run.children(recursive=True), run]:
            process.kill()


@pytest.mark.real
def test_only_its_run_reaches_ray_and_a_job_outlives_its_worker(run, tmp_path):
    """All ports are on this machine and want the run's token, whatever the environment says."""
    first = next_try(run)
    first.parent().kill()
    second = next_try(run, first)
    second.suspend()  # until all clients have tried

    ports = [(one, port) for one in processes(run) for port in one.net_connections("tcp")]
    ports = [(one.name(), port.laddr) for one, port in ports if port.status == "LISTEN"]
    assert {address.ip for _, address in ports} <= LOOPBACK, ports
    [port] = {address.port for name, address in ports if name == "gcs_server"}
    variables = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_NUM_REDIS_GET_RETRIES": "1",  # tries to connect
    }

    def client(**token):
        """Return how a client ends."""
        environment = os.environ | variables | token
        command = [sys.executable, "-c", CLIENT]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert "InvalidAuthToken" in client(RAY_AUTH_MODE="disabled").stderr
    refused = replicate(tmp_path / "other", *RUN, "01", **variables, **WRONG)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "give it the cluster's token" in refused.stderr.splitlines()[-1]
    token = second.environ()["RAY_AUTH_TOKEN"]
    assert client(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token).stdout == "1 node\n"

    second.resume()
    printed, _ = run.communicate()
    assert run.returncode == 0, printed
    assert "tiny-random-map: ok" in printed
    for name in NOTEBOOKS["01"].figures:
        assert (tmp_path / f"figures/smoke/{name}.csv").exists(), name


@pytest.mark.real
def test_a_job_whose_worker_always_dies_is_lost_until_a_second_run(run, tmp_path):
    tries = []
    for _ in range(1 + cluster.RETRIES):
        tries.append(next_try(run, *tries))
        tries[-1].parent().kill()
    printed, _ = run.communicate()
    assert run.returncode == 1
    assert re.search(r"tiny-random-map: lost, .*: Its worker or node died, 3 times \(", printed)
    done = replicate(tmp_path, "--profile", "smoke", "--only", "01")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def nodes(tmp_path):
    """The variables of a cluster, and its head and another node, which take a job each."""
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": 64 * "1"}
    quick = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "2"}
    ray, started = Path(sys.executable).with_name("ray"), []
    try:
        for place in (
            f"--head --port={port} --include-dashboard=false",
            f"--address={HOST}:{port}",
        ):
            size = f"--block --node-ip-address={HOST} --num-cpus=1 --num-gpus=0"
            log, environment = tmp_path / str(len(started)), os.environ | variables | quick
            command = [ray, "start", *size.split(), *place.split()]
            with log.open("w") as stdout:
                started.append(psutil.Popen(command, env=environment, stdout=stdout))
            wait_for(lambda log=log: "Ray runtime started" in log.read_text())
        yield variables | {"RAY_ADDRESS": f"{HOST}:{port}"}, *started
    finally:
        for node in started:
            kill_with_all(node)


def kill_with_all(node: psutil.Process) -> None:
    """Kill a process and all below it, as when their machine is gone."""
    if node.is_running():
        for process in [*node.children(recursive=True), node]:
            process.kill()
        node.wait()


@pytest.mark.real
def test_the_job_of_a_lost_node_runs_on_another(nodes, tmp_path):
    """The run says so, and ends well. Its two jobs after the map begin at the same time."""
    variables, _, node = nodes
    environment = os.environ | variables | {"DEEPER_LAYERS_OUTPUT": str(tmp_path)}
    numbers = ("11", "12")
    command = [sys.executable, "-m", "replication", *RUN, *numbers]
    run = psutil.Popen(command, cwd=paths.ROOT, env=environment, text=True, stdout=subprocess.PIPE)
    wait_for(lambda: processes(node, "--job"))
    kill_with_all(node)
    printed, _ = run.communicate()
    assert run.returncode == 0, printed
    (lost,) = re.findall(r"The node at (\S+) was lost: what ran on it is tried again\.", printed)
    assert re.fullmatch(r"[\d.]+", lost)
    for name in [name for number in numbers for name in NOTEBOOKS[number].figures]:
        assert (tmp_path / f"figures/smoke/{name}.csv").exists(), name


def test_a_run_without_a_node_for_its_jobs_ends(monkeypatch, capsys):
    """And says how to go on: Ray would wait for ever."""
    here = {"NodeID": "a", "NodeManagerAddress": HOST, "Alive": True, "Resources": {"CPU": 2}}
    lost = here | {"NodeID": "b", "NodeManagerAddress": "10.0.0.2"}
    with_gpu = lost | {"Resources": {"CPU": 2, "GPU": 1}}
    looks = iter([[here, with_gpu], [here, with_gpu], [here, lost | {"Alive": False}]])
    ray = mock.MagicMock()
    ray.nodes.side_effect = lambda: next(looks)
    ray.wait.return_value = [], []
    monkeypatch.setattr(cluster, "connect", lambda: ray)
    with pytest.raises(MachineFailed, match="No node is left that has room .* repeat the command"):
        list(cluster.on_ray([Launch(job="b-map")]))
    assert "The node at 10.0.0.2 was lost" in capsys.readouterr().out
