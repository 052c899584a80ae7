"""Jobs on a Ray cluster: one GPU each, pinned by Ray, in a process of their own.

Uses the cluster that RAY_ADDRESS names, else starts one on this machine. All nodes see the same
checkout and the same results: the usual shared file system. A job whose worker or node dies is
tried again, RETRIES times, and resumes from what it had stored; one that fails by itself is not.

No two jobs share a GPU, small models neither. A healing plans with all memory that is free, which a
second job would change. Jobs that do not heal, and fit twice, take 1 % of the hours of `paper`.
"""

import os
import secrets
import signal
from collections.abc import Iterator, Sequence
from functools import cache

from replication import paths
from replication.run.execution import Launch, Outcome, attempt
from replication.run.executors import MachineFailed

RETRIES = 2
WATCH = 10  # seconds between two looks at the nodes
PASSED_ON = ("OMP_", "HF_", "DEEPER_LAYERS_", "PYTORCH_", "CUBLAS_")  # beginnings of variables


@cache
def connect():
    """Return the module `ray`, connected to the cluster of RAY_ADDRESS, or to one of this run.

    Ray runs whatever reaches its ports. One of this run listens on 127.0.0.1, and wants a token
    that only its own processes have. Raises ConnectionError where a cluster refuses this client.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # by itself Ray never ends
    address = os.environ.get("RAY_ADDRESS", "local")  # not one that this machine had before
    if address == "local":
        os.environ |= {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux, too, all ports on 127.0.0.1
        }
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray  # here: it reads these variables once, as it is imported

    variables = {k: value for k, value in os.environ.items() if k.startswith(PASSED_ON)}
    variables["DEEPER_LAYERS_OUTPUT"] = str(paths.OUTPUT)
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    at_term = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, runtime_env={"env_vars": variables}, **quiet)
        signal.signal(signal.SIGTERM, at_term)  # Ray's own ends this process without a word
    except (ray.exceptions.AuthenticationError, ConnectionError) as error:
        raise ConnectionError(
            f"No Ray cluster at {address} takes this client: give it the cluster's token, as "
            "RAY_AUTH_TOKEN or in ~/.ray/auth_token (RAY_AUTH_MODE=disabled if it has none)."
        ) from error
    return ray


def on_ray(launches: Sequence[Launch], execute=attempt) -> Iterator[tuple[Launch, Outcome]]:
    """Yield each launch with its Outcome; they run as soon as there is a GPU for them.

    execute: what a worker does with a launch. Says which nodes are lost meanwhile; raises
    MachineFailed if none is left that has room for a job.
    """
    ray = connect()
    job = resources(ray.nodes())
    task = ray.remote(max_calls=1, max_retries=RETRIES)(execute).options(**job)
    running = {task.remote(launch): launch for launch in launches}
    lost = lost_nodes(ray.nodes())
    while running:
        ended, _ = ray.wait(list(running), timeout=WATCH)
        nodes, before = ray.nodes(), lost
        lost = lost_nodes(nodes)
        for node in lost.keys() - before.keys():
            print(f"The node at {lost[node]} was lost: what ran on it is tried again.", flush=True)
        for done in ended:
            yield running.pop(done), _outcome(ray, done)
        if running and not any(_has_room(node, job) for node in nodes):
            raise MachineFailed(
                "No node is left that has room for a job: start one and repeat the command: what "
                "is done stays."
            )


def _outcome(ray, done) -> Outcome:
    """Return the Outcome of a task that has ended."""
    try:
        return ray.get(done)
    except ray.exceptions.RayError as error:
        why = f"Its worker or node died, {RETRIES + 1} times ({type(error).__name__})."
        return Outcome("lost", why)


def lost_nodes(nodes: list[dict]) -> dict[str, str]:
    """Return the address of each node that has died, by its id: Ray goes on listing them."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if not node["Alive"]}


def _has_room(node: dict, job: dict) -> bool:
    """Return whether a node has what a job takes, be it free or not."""
    has = node["Resources"]
    has_gpus = has.get("GPU", 0) >= job["num_gpus"]
    has_cpus = has.get("CPU", 0) >= job["num_cpus"]
    return node["Alive"] and has_gpus and has_cpus


def resources(nodes: list[dict]) -> dict:
    """Return what a job takes: a GPU and its share of the CPUs, or all CPUs of a node.

    Ray sets OMP_NUM_THREADS to the number of CPUs. Of unlike nodes that are alive, the least.
    """
    resources_of = [node["Resources"] for node in nodes if node["Alive"]]
    shares = [node.get("CPU", 1) // node.get("GPU", 1) for node in resources_of]
    has_gpus = any("GPU" in node for node in resources_of)
    return {"num_gpus": int(has_gpus), "num_cpus": max(1, int(min(shares)))}
