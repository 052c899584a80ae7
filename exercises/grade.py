"""Grade write_it.ipynb: `python exercises/grade.py handed-in/*.ipynb > grades.csv`.

A row has the points of a hand-in (60 at most), what the check says of each function, and what went
wrong beside that. Functions are judged by the checks of this folder, after the cell that defines
them and after the last cell: what a notebook says of itself counts for nothing. Each hand-in runs
in a process of its own, so one that is damaged, dies or never ends does not stop the others. Its
cells run in the profile `smoke`: no check depends on the model, and SmolLM2 takes most of the time.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat

POINTS = {"angles": 10, "similarity_block": 10, "dropped": 20, "floor": 10, "paired_error": 10}
SECONDS = 300  # of a cell, and of a check
AT_ONCE = min(4, os.cpu_count() or 1)  # hand-ins; each takes about 1 GB
SMALLEST = '\nPROFILE, MODELS, LIMIT = "smoke", None, None'  # after a hand-in's own
RIGHT, HALF, MISSING = "right", "half right: ", "not defined"


# ---- in the process of one hand-in -----------------------------------------------------------


class Judge:
    """Runs the cells of a notebook, and writes a line of JSON for each cell and each judgement."""

    def __init__(self, results: Path, seconds: int):
        import checks  # before a hand-in can change it
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        self.results, self.seconds = results, seconds
        self.checks, self.half = dict(checks.CHECKS), checks.HalfRight
        self.shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
        self.judged = {}  # each function's last definition, and what was said of it
        signal.signal(signal.SIGALRM, self.interrupt)

    def interrupt(self, *_) -> None:
        raise TimeoutError(f"it took more than {self.seconds} s")

    def note(self, **line) -> None:
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def run(self, sources: list[str]) -> None:
        for number, source in enumerate(sources, 1):
            self.note(cell=number)
            signal.alarm(self.seconds)
            outcome = self.shell.run_cell(source)
            signal.alarm(0)
            error = outcome.error_before_exec or outcome.error_in_exec
            if isinstance(error, TimeoutError):
                self.note(trouble=f"code cell {number}: {error}")
            for name in self.checks:
                if error and f"def {name}(" in source:
                    self.note(name=name, says=_sentence(error))
                self.judge(name)
        for name in self.checks:
            self.judge(name, again=True)  # what it needs may stand in a later cell
        self.note(done=True)

    def judge(self, name: str, again: bool = False) -> None:
        """Note what a function's check says, if it has changed or (`again`) was not right."""
        function = self.shell.user_ns.get(name)
        last, said = self.judged.get(name, (None, ""))
        is_new = function is not last
        if function is None or not (is_new or again and said != RIGHT):
            return
        self.judged[name] = function, self.says(self.checks[name], function)
        self.note(name=name, says=self.judged[name][1])

    def says(self, check: Callable, function: Callable) -> str:
        signal.alarm(self.seconds)
        try:
            check(function)
            return RIGHT
        except self.half as error:
            return HALF + _sentence(error)
        except BaseException as error:  # whatever a function raises, and an exit
            return _sentence(error)
        finally:
            signal.alarm(0)


def _sentence(error: BaseException) -> str:
    """Return an error on one line; of an assertion what it says."""
    text = " ".join(str(error).split())
    if isinstance(error, AssertionError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---- all hand-ins ----------------------------------------------------------------------------


def grade(file: Path, seconds: int = SECONDS) -> dict[str, str]:
    """Return the row of a hand-in: file, points, a sentence for each function, and `trouble`."""
    try:
        cells = nbformat.read(file, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        sources = [cell.source + SMALLEST * _has_parameters(cell) for cell in code]
    except Exception as error:  # of a damaged file nbformat raises many kinds
        return _row(file, [{"trouble": f"no notebook: {_sentence(error)[:200]}"}])
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.jsonl")
        results.touch()
        task = {"results": str(results), "seconds": seconds, "sources": sources}
        status = _run(json.dumps(task), results, 2 * seconds)
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
    if not lines:
        lines.append({"trouble": "exercises/checks.py cannot be imported by this Python"})
    elif "done" not in lines[-1]:
        number = [line["cell"] for line in lines if "cell" in line][-1]
        end = f"did not end in {2 * seconds} s" if status is None else f"ended Python ({status})"
        lines.append({"trouble": f"code cell {number} {end}: no later cell was run"})
    return _row(file, lines)


def _has_parameters(cell) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def _run(task: str, results: Path, seconds: int) -> int | None:
    """Run a hand-in; return its exit status, None if nothing came of it for so many seconds.

    The task goes in by stdin, so that no cell reads where the results are.
    """
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, "--judge"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )
    process.stdin.write(task.encode())
    process.stdin.close()
    while process.poll() is None:
        time.sleep(0.1)
        written = results.stat()
        limit = seconds if written.st_size else SECONDS  # before the first cell it imports
        if time.time() - written.st_mtime > limit:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
    return process.returncode


def _row(file: Path, lines: list[dict]) -> dict[str, str]:
    """Return a row by the lines of a run: the last sentence of each function counts."""
    says = dict.fromkeys(POINTS, MISSING)
    says |= {line["name"]: line["says"] for line in lines if "name" in line}
    points = 0
    for name, most in POINTS.items():
        points += most * (says[name] == RIGHT) + most // 2 * says[name].startswith(HALF)
    trouble = "; ".join(line["trouble"] for line in lines if "trouble" in line)
    return {"file": str(file), "points": points} | says | {"trouble": trouble}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="hand-ins of write_it.ipynb")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for a cell, and for a check")
    parser.add_argument("--judge", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.judge:
        task = json.load(sys.stdin)
        Judge(Path(task["results"]), task["seconds"]).run(task["sources"])
        return
    table = csv.DictWriter(sys.stdout, ["file", "points", *POINTS, "trouble"])
    table.writeheader()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for row in pool.map(partial(grade, seconds=options.seconds), options.files):
            table.writerow(row)
            sys.stdout.flush()


if __name__ == "__main__":
    main()
