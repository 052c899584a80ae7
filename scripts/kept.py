"""What must not leave: `python -m scripts.kept` adds what is new to tests/kept.csv.

Its rows are the expectations and outcomes of PREREGISTERED.md, and the results of each recorded
table. An expectation is never edited: an **Edit** stands behind it. A result leaves the record only
for a new version of itself: of more questions, say, or measured by better code.
tests/test_kept.py says what is gone. A row of kept.csv is never removed, here or by hand.
"""

import csv
import hashlib
import json
import re
import sys
from collections.abc import Iterator

import pandas as pd

from replication import paths

FILE = paths.ROOT / "tests" / "kept.csv"
PAGE = paths.ROOT / "PREREGISTERED.md"
COLUMNS = ("where", "what", "count", "digests")
KEPT = r"\*(?:Expected|Against|Came|Statistic|Judged)"  # how a sentence that is kept begins
OTHER = r"\*(?:Known|Seen|Not seen|Asked|Committed)|\*\*Edit"  # and what may stand behind it
DIGITS = 6  # of a digest: enough for one table
# parameters that tell one result from another; others are its version, or how much is asked
IDENTITY = ("kind", "model", "quantization", "block_start", "block_size", "task", "map", "patched")
IDENTITY += ("shots", "shot_order")
OF_RECIPE = ("steps", "seed", "rank")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def sentences(page: str) -> Iterator[tuple[str, str]]:
    """Yield each expectation, outcome and statistic of the page, with its entry's title."""
    title = ""
    for line in re.sub(r"\n  +(?!- )", " ", page).splitlines():  # a point may have several lines
        if line.startswith("## "):
            title = line[3:]
        for part in re.split(f"(?={KEPT}|{OTHER})", line):
            if re.match(KEPT, part):
                yield title, " ".join(part.split())


def result(request: str) -> str:
    """Return what tells a recorded result from others, whatever its version."""
    params = json.loads(request)
    recipe = params.get("recipe", {})
    kept = {name: params.get(name) for name in IDENTITY} | {n: recipe.get(n) for n in OF_RECIPE}
    return json.dumps(kept)


def there(page: str, folder) -> dict[tuple[str, str], tuple[int, set[str]]]:
    """Return what is there: by where and what, the number of rows and the digests.

    folder: of recorded runs. Of a table only the rows that have a value count.
    """
    have = {(title, text[:60]): (1, {digest(text)}) for title, text in sentences(page)}
    for file in sorted(folder.glob("*/*.parquet")):
        rows = with_value(pd.read_parquet(file))
        digests = {digest(result(request)) for request in rows.request}
        have[f"{file.parent.name}/{file.name}", "rows"] = len(rows), digests
    return have


def with_value(rows: pd.DataFrame) -> pd.DataFrame:
    """Return those rows of a table that have a value; all, if it has no such column."""
    return rows[rows.value.notna()] if "value" in rows else rows


def kept() -> list[dict]:
    """Return the rows of the file."""
    with FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def gone(rows: list[dict], have: dict) -> list[str]:
    """Return what is kept and no longer there, a sentence each."""
    problems = []
    for row in rows:
        count, digests = have.get((row["where"], row["what"]), (0, set()))
        missing = set(row["digests"].split()) - digests
        if missing or count < int(row["count"]):
            lost = f"{len(missing)} results; {count} of {row['count']}"
            problems.append(f"{row['where']}: {row['what']} ({lost})")
    return problems


def added(rows: list[dict], have: dict) -> list[dict]:
    """Return rows of what is there and not kept yet; none of those that are kept is changed."""
    more = []
    for (where, what), (count, digests) in have.items():
        same = [row for row in rows if (row["where"], row["what"]) == (where, what)]
        old = set(" ".join(row["digests"] for row in same).split())
        if digests - old or count > max((int(row["count"]) for row in same), default=0):
            values = where, what, count, " ".join(sorted(digests - old))
            more.append(dict(zip(COLUMNS, values, strict=True)))
    return more


def main() -> int:
    rows, have = kept(), there(PAGE.read_text(encoding="utf-8"), paths.RECORDED)
    with FILE.open("a", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(added(rows, have))
    problems = gone(rows, have)
    print("\n".join(["Gone:", *problems]) if problems else "Nothing that was kept is gone.")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
