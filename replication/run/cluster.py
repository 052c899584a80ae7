"""Jobs on a Ray cluster: one GPU each, pinned by Ray, in a process of their own.

Uses the cluster that RAY_ADDRESS names, else starts one on this machine, with its dashboard off.
All nodes see the same checkout and the same results: the usual shared file system. A job whose
worker or node dies is tried again, RETRIES times, and resumes from what it had stored; one that
fails by itself is not. Where the cluster has no GPUs, a job takes as many CPUs as it has threads.
"""

import os

import ray
from ray.exceptions import OutOfMemoryError, RayError

from replication import paths
from replication.run.execution import Launch, Outcome, attempt

RETRIES = 2
OBJECT_STORE = 100 * 2**20  # bytes; jobs hand over names and outcomes only
VARIABLES = (
    "OMP_NUM_THREADS",
    "DEEPER_LAYERS_MIRROR",
    "HF_HUB_OFFLINE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_TOKEN",
    "PYTORCH_ALLOC_CONF",
    "CUBLAS_WORKSPACE_CONFIG",
)


class Ray:
    """The engine of a cluster: what is submitted runs as soon as a GPU is free.

    execute: what a job does in its worker.
    """

    def __init__(self, execute=attempt):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        environment = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        environment["DEEPER_LAYERS_OUTPUT"] = str(paths.OUTPUT)
        here = {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
            "_system_config": {"task_oom_retries": RETRIES},  # by itself Ray never ends
        }
        ray.init(
            runtime_env={"env_vars": environment},
            log_to_driver=False,
            logging_level="ERROR",
            **({} if "RAY_ADDRESS" in os.environ else here),
        )
        task = ray.remote(max_calls=1, max_retries=RETRIES)(execute)
        self.task, self.running = task.options(**resources(ray.nodes())), {}

    def submit(self, launch: Launch) -> None:
        """Have `launch` executed as soon as there is room."""
        self.running[self.task.remote(launch)] = launch

    def ended(self) -> tuple[Launch, Outcome]:
        """Wait for a submitted launch to end."""
        [done], _ = ray.wait(list(self.running))
        launch = self.running.pop(done)
        try:
            return launch, ray.get(done)
        except OutOfMemoryError:
            return launch, Outcome("oom", f"Its node ran out of memory, {RETRIES + 1} times.")
        except RayError as error:
            why = f"Its worker or node died, {RETRIES + 1} times ({type(error).__name__})."
            return launch, Outcome("lost", why)

    def close(self) -> None:
        """Leave the cluster, or end that of this machine, with all that runs on it."""
        ray.shutdown()


def resources(nodes: list[dict]) -> dict:
    """Return what a job takes of a node: a GPU, or where there are none, a CPU for each thread."""
    if any(node["Resources"].get("GPU") for node in nodes):
        return {"num_gpus": 1, "num_cpus": 1}
    largest = max(int(node["Resources"].get("CPU", 1)) for node in nodes)
    return {"num_cpus": min(int(os.environ["OMP_NUM_THREADS"]), largest)}
