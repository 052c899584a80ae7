"""What a reader sees of a run: a line when a job ends, and a table of all of them at the end."""

import sys
import time
from collections.abc import Mapping

from tqdm.auto import tqdm

from lib.run.execution import Outcome

DONE_BEFORE = "done before"


class Progress:
    """A line for each end, in a terminal and in a log alike; in a terminal a bar below them."""

    def __init__(self, total: int):
        self.total, self.ends, self.failed, self.worked = total, 0, 0, 0
        self.start = time.monotonic()
        self.bar = tqdm(total=total, desc="jobs", disable=None)

    def told(self, name: str, outcome: Outcome) -> None:
        """Count and print one end. The estimate is the mean time so far for each one left."""
        self.ends += 1
        self.failed += outcome.status != "ok"
        self.worked += outcome.reason != DONE_BEFORE
        left = self.total - self.ends
        line = f"[{self.ends}/{self.total}] {name}: {outcome.status}, {outcome.seconds:.0f} s"
        line += f"; {self.failed} failed, {left} left"
        if left and self.worked:
            minutes = (time.monotonic() - self.start) / self.worked * left / 60
            line += f", about {minutes:.0f} min"
        self.bar.update()
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()
        if not left:
            self.bar.close()


def table(found: Mapping[str, Outcome]) -> str:
    """The closing table: status, seconds, name and reason of each job and notebook."""
    lines = [
        f"{outcome.status:22} {outcome.seconds:8.0f} s  {name}"
        + (f": {outcome.reason}" if outcome.reason else "")
        for name, outcome in found.items()
    ]
    return "\n".join([f"{'status':22} {'time':>10}  job", *lines])
