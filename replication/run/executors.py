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
IN_A_ROW = 3  # failures for one reason, after which a machine is taken for broken


class MachineFailed(Exception):
    """Launches failed one after the other for the same reason: a broken card, a full disk."""


class Streak:
    """How many launches have failed for one reason, each right after the other."""

    def __init__(self):
        self.kind, self.length = None, 0

    def add(self, outcome: Outcome) -> int:
        """Count another launch, and return how many in a row have failed for its reason."""
        kind = outcome.kind_of_failure
        self.length = 0 if kind is None else 1 + self.length * (kind == self.kind)
        self.kind = kind
        return self.length


def one_by_one(launches: Sequence[Launch]) -> Iterator[tuple[Launch, Outcome]]:
    """One after the other: each may use the whole machine.

    Raises MachineFailed after IN_A_ROW failures of a kind: the others would end as they did.
    """
    streak = Streak()
    for launch in launches:
        outcome = attempt(launch)
        yield launch, outcome
        if streak.add(outcome) >= IN_A_ROW:
            raise MachineFailed(
                f"{IN_A_ROW} in a row failed for the same reason: {outcome.reason} Mend this and "
                "repeat the command: what is done stays."
            )


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
