"""Who executes launches on one machine: one after the other, or one on each core.

An executor takes launches and yields each with its Outcome, as they end. That of several machines
is `cluster.on_ray`.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from lib.models import machine
from replication.run.execution import Launch, Outcome, attempt

Executor = Callable[[Sequence[Launch]], Iterator[tuple[Launch, Outcome]]]


def one_by_one(launches: Sequence[Launch]) -> Iterator[tuple[Launch, Outcome]]:
    """One after the other: each may use the whole machine."""
    for launch in launches:
        yield launch, attempt(launch)


def on_all_cores(launches: Sequence[Launch]) -> Iterator[tuple[Launch, Outcome]]:
    """One on each core at a time: they only draw. If interrupted, no kernel stays behind."""
    pool = ProcessPoolExecutor(machine.cores())
    try:
        running = {pool.submit(_attempt, launch): launch for launch in launches}
        for ended in as_completed(running):
            yield running[ended], ended.result()
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(launch: Launch) -> Outcome:
    """`attempt`, in a process of its own: it ends whatever that process has started."""
    try:
        return attempt(launch)
    except KeyboardInterrupt:
        os._exit(130)  # or the pool would give this process the next notebook
