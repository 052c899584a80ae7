"""Draw the recorded run: notebooks that measure nothing, one on each core at a time."""

import multiprocessing
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed

from lib.models import machine
from replication.run.batch import Batch, Progress
from replication.run.execution import Launch, Outcome, attempt


def draw(batch: Batch) -> Mapping[str, Outcome]:
    """Execute the notebooks of a batch in no order; return their Outcomes by name, in order.

    If it is interrupted, no kernel stays behind.
    """
    progress = Progress(len(batch.notebooks))
    pool = ProcessPoolExecutor(machine.cores())
    try:
        running = {}
        for notebook in batch.notebooks.values():
            running[pool.submit(_attempt, Launch(notebook, batch.parameters))] = notebook.file
        for ended in as_completed(running):
            progress.add(running[ended], ended.result())
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return {n.file: progress.outcomes[n.file] for n in batch.notebooks.values()}


def _attempt(launch: Launch) -> Outcome:
    """`attempt`, in a process of its own: it ends whatever that process has started."""
    try:
        return attempt(launch)
    except KeyboardInterrupt:
        os._exit(130)  # or the pool would give this process the next notebook
