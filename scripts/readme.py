"""The parts of README files that are made of the rest: `python -m scripts.readme` renews them.

figures/README.md has the pictures with what draws each, and the 13 claims in words, all of the
recorded run; lib/README.md counts lib/models/families.csv; replication/README.md lists profiles.
"""

import re
import sys
from functools import cache, partial

from lib import storage
from replication import claims, paths, profiles
from replication.run.notebooks import FIGURES, NOTEBOOKS

MISSING = paths.ROOT / "scripts" / "not_in_it.csv"
FAMILIES = paths.ROOT / "lib" / "models" / "families.csv"
WIDTH = 320  # of a thumbnail, in pixels
OF_PAPER = re.compile(r"figure_\d[a-d]?$")


@cache
def _verdicts() -> tuple:
    """Those of the recorded run."""
    return tuple(claims.verdicts(claims.gather(profiles.get(profiles.DRAWN))))


def in_words() -> str:
    """The 13 claims, a row each."""
    return claims.in_words(here=_verdicts())


def picture(figure: str) -> str:
    """A small picture, the recorded one; what it shows stands beside it."""
    return f'<img src="{profiles.RECORDED}/{figure}.png" width="{WIDTH}" alt="{figure}">'


def figures(of_paper: bool) -> str:
    """A row per figure, the paper's or ours: the recorded picture, what it shows and what is not
    in it, what draws it."""
    missing = {row["figure"]: row["missing"] for row in storage.rows(MISSING)}
    lines = [
        "| picture | shows (notebook) |",
        "|---|---|",
    ]
    for name, (shows, numbers) in FIGURES.items():
        if bool(OF_PAPER.match(name)) != of_paper:
            continue
        links = [f"[{n}](../notebooks/{NOTEBOOKS[n].file}.ipynb)" for n in numbers]
        short = name.removeprefix("figure_")
        drawn = (paths.ROOT / "figures" / profiles.RECORDED / f"{name}.png").exists()
        shown = picture(name) if drawn else "not recorded"
        lacks = f"<br>*Not in it:* {missing[name]}" if name in missing else ""
        lines.append(f"| {shown} | **{short}**: {shows} ({', '.join(links)}){lacks} |")
    return "\n".join(lines) + "\n"


def families() -> str:
    """How many families of decoders can be cut, joined and folded."""
    rows = [row for row in storage.rows(FAMILIES) if not row["cut"].startswith("Not tried")]
    cut, joined, folded = (
        sum(row[column] == "yes" for row in rows) for column in ("cut", "joined", "folded")
    )
    return (
        f"  Tiny models of {len(rows)} families are tried each night: {cut} can be cut; "
        f"a healing joins documents of {joined} in one row, and pads the others; {folded} can have "
        "a map folded in. [The table](models/families.csv) says which, and why others cannot be "
        "cut.\n"
    )


def runs() -> str:
    """The profiles: what each measures, and how long it takes."""
    lines = ["| profile | models | time |", "|---|---|---|"]
    for row in storage.rows(profiles.TIMES):
        lines.append(f"| `{row['profile']}` | {row['models']} | {row['time']} |")
    return "\n".join(lines) + "\n"


PARTS = {  # of which file, between <!-- name --> and <!-- end of name -->
    "lib/README.md": {"families": families},
    "replication/README.md": {"profiles": runs},
    "figures/README.md": {
        "the paper's figures": partial(figures, of_paper=True),
        "claims": in_words,
        "our figures": partial(figures, of_paper=False),
    },
}


def renewed(text: str, parts: dict) -> str:
    """The text with each part made anew. Raises ValueError if the marks of one are not there."""
    for name, made in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, first, rest = text.partition(start)
        _, last, after = rest.partition(end)
        if not (first and last):
            raise ValueError(f"The marks {start.strip()} and {end.strip()} are missing.")
        text = before + start + made() + end + after
    return text


def main() -> None:
    for name, parts in PARTS.items():
        file = paths.ROOT / name
        try:
            text = renewed(file.read_text(encoding="utf-8"), parts)
        except ValueError as error:
            sys.exit(f"{name}: {error}")
        file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
