"""Put known errors back, one at a time: `python -m scripts.mutations` runs the test of each.

tests/mutations.csv names each error: the file, the text that is right (`old`, which stands there
once), the text that is wrong (`new`), and the test that must fail. The errors are put into a copy
of the checkout. Ends with 1 if a test passes in spite of its error. `--only key` takes those whose
name has this word.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lib import storage
from replication.paths import ROOT

FILE = ROOT / "tests" / "mutations.csv"
LARGE = ("assets", "checkpoints")  # folders of data/: gigabytes, which the copy reads in place
IGNORED = shutil.ignore_patterns(".git", ".venv", "wheels", *LARGE, "papermill_runs", "results")


def survives(mutation: dict[str, str], copy: Path) -> bool:
    """Return whether the test passes with the error. Raises ValueError if `old` is not there once,
    or no test was run.

    copy: of the checkout, which is as before afterwards.
    """
    file = copy / mutation["file"]
    right = file.read_text(encoding="utf-8")
    if right.count(mutation["old"]) != 1:
        raise ValueError(f"{mutation['name']}: {mutation['file']} has its text not once.")
    file.write_text(right.replace(mutation["old"], mutation["new"]), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", *mutation["test"].split()]
    try:
        environment = os.environ | {"PYTHONPATH": str(copy)}
        run = subprocess.run(command, cwd=copy, env=environment, capture_output=True)
        if run.returncode not in (0, 1):  # a test that is not there, say
            raise ValueError(f"{mutation['name']}: pytest ended with {run.returncode}.")
        return not run.returncode
    finally:
        file.write_text(right, encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutations", description=__doc__)
    parser.add_argument("--only", default="", metavar="WORD", help="errors with this in their name")
    only, survivors = parser.parse_args(argv).only, 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(ROOT, copy, ignore=IGNORED)
        for name in LARGE:
            (copy / "data" / name).symlink_to(ROOT / "data" / name)
        for mutation in storage.rows(FILE):
            if only in mutation["name"]:
                alive = survives(mutation, copy)
                survivors += alive
                print("SURVIVES" if alive else "found", mutation["name"], flush=True)
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
