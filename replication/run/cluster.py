"""Jobs on a Ray cluster: one GPU each, pinned by Ray, in a process of their own.

Uses the cluster that RAY_ADDRESS names, else starts one on this machine. All nodes see the same
checkout and the same results: the usual shared file system. A job whose worker or node dies is
tried again, RETRIES times, and resumes from what it had stored; one that fails by itself is not.
"""

import os
from collections.abc import Iterator, Sequence

import ray
from ray.exceptions import RayError

from replication import paths
from replication.run.execution import Launch, Outcome, attempt

RETRIES = 2
PASSED_ON = ("OMP_", "HF_", "DEEPER_LAYERS_", "PYTORCH_", "CUBLAS_")  # beginnings of variables


def on_ray(launches: Sequence[Launch], execute=attempt) -> Iterator[tuple[Launch, Outcome]]:
    """Yield each launch with its Outcome; they run as soon as there is a GPU for them.

    execute: what a worker does with a launch.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # by itself Ray never ends
        variables = {k: value for k, value in os.environ.items() if k.startswith(PASSED_ON)}
        variables["DEEPER_LAYERS_OUTPUT"] = str(paths.OUTPUT)
        ray.init(runtime_env={"env_vars": variables}, log_to_driver=False, logging_level="ERROR")
    task = ray.remote(max_calls=1, max_retries=RETRIES)(execute)
    task = task.options(**resources(ray.nodes()))
    running = {task.remote(launch): launch for launch in launches}
    while running:
        [done], _ = ray.wait(list(running))
        yield running.pop(done), _outcome(done)


def _outcome(done: ray.ObjectRef) -> Outcome:
    try:
        return ray.get(done)
    except RayError as error:
        name = type(error).__name__
        return Outcome("lost", f"Its worker or node died, {RETRIES + 1} times ({name}).")


def resources(nodes: list[dict]) -> dict:
    """Return what a job takes: a GPU and its share of the CPUs, or all CPUs of a node.

    Ray sets OMP_NUM_THREADS to the number of CPUs. Of unlike nodes, the least.
    """
    resources_of = [node["Resources"] for node in nodes]
    shares = [node.get("CPU", 1) // node.get("GPU", 1) for node in resources_of]
    has_gpus = any("GPU" in node for node in resources_of)
    return {"num_gpus": int(has_gpus), "num_cpus": max(1, int(min(shares)))}
