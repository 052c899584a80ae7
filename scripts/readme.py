"""The parts of README files that are made of the rest: `python -m scripts.readme` renews them.

figures/README.md has the paper's figures one by one beside ours, our own pictures, and the 13
claims in words, all of the recorded run, and the rows of data/rows/;
lib/README.md counts lib/models/families.csv; replication/README.md lists profiles.
"""

import re
import sys
from functools import cache

from lib import storage
from replication import claims, paths, profiles
from replication.row import check
from replication.row.figure import table as table_of_rows
from replication.run.notebooks import FIGURES, NOTEBOOKS

BY_FIGURE = paths.ROOT / "scripts" / "figure_by_figure.csv"  # beside the paper's
PAPER = "https://arxiv.org/html/2403.17887v1#"
FAMILIES = paths.ROOT / "lib" / "models" / "families.csv"
WIDTH = 320  # of a thumbnail, in pixels
OF_PAPER = re.compile(r"figure_\d[a-d]?$")


@cache
def _verdicts() -> tuple:
    """Those of the recorded run."""
    return tuple(claims.verdicts(claims.gather(profiles.get(profiles.DRAW_ONLY_PROFILE))))


def in_words() -> str:
    """The 13 claims, a row each."""
    return claims.in_words(here=_verdicts())


def picture(figure: str) -> str:
    """A small picture, the recorded one; what it shows stands beside it."""
    return f'<img src="{profiles.RECORD_PROFILE}/{figure}.png" width="{WIDTH}" alt="{figure}">'


def figures() -> str:
    """A row per figure of ours: the recorded picture, what it shows, what draws it."""
    lines = ["| picture | shows (notebook) |", "|---|---|"]
    for name, (shows, _) in FIGURES.items():
        if not OF_PAPER.match(name):
            short = name.removeprefix("figure_")
            lines.append(f"| {_shown(name)} | **{short}**: {shows} ({_notebooks(name)}) |")
    return "\n".join(lines) + "\n"


def by_figure() -> str:
    """A row per figure of the paper: ours, what the paper shows, what is the same, what differs,
    what draws it."""
    lines = ["| ours | the paper's |", "|---|---|"]
    compared = {row["figure"]: row for row in storage.rows(BY_FIGURE)}
    for name in filter(OF_PAPER.match, FIGURES):
        row, short = compared[name], name.removeprefix("figure_")
        parts = [
            f"**[{short}]({PAPER}{row['section']})**: {row['paper']}.",
            *(f"*{kind.capitalize()}*: {row[kind]}." for kind in ("same", "differs")),
            f"`make figure-{short}` ({_notebooks(name)})",
        ]
        lines.append(f"| {_shown(name)} | {'<br>'.join(parts)} |")
    return "\n".join(lines) + "\n"


def _shown(figure: str) -> str:
    drawn = (paths.ROOT / "figures" / profiles.RECORD_PROFILE / f"{figure}.png").exists()
    return picture(figure) if drawn else "not recorded"


def _notebooks(figure: str) -> str:
    """Links to those that draw a figure."""
    numbers = FIGURES[figure][1]
    folder = "../papermill_runs/executed"
    return ", ".join(f"[{n}]({folder}/{NOTEBOOKS[n].file}.ipynb)" for n in numbers)


def ledger() -> str:
    """A row per model whose row is in data/rows/."""
    return table_of_rows(check.read_all())


def families() -> str:
    """How many families of decoders can be cut, joined and folded."""
    rows = [row for row in storage.rows(FAMILIES) if not row["cut"].startswith("Not tried")]
    cut, written, joined, folded, read_by_4 = (
        sum(row[column] == "yes" for row in rows)
        for column in ("cut", "written", "joined", "folded", "transformers_4")
    )
    return (
        f"  `make nightly` tries a tiny model of each of {len(rows)} families. Of these, {cut} can "
        f"be cut. {written} of those write with a cache, token by token, as they do without one. "
        f"In {joined} a healing joins documents in one row, in the others it pads them. "
        f"Into {folded} a linear map can be folded. Transformers 4.57 reads {read_by_4} of the "
        "saved checkpoints with the same logits; most of the others it does not know. "
        "[A table](models/families.csv) says which, and why others cannot be cut.\n"
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
        "rows": ledger,
        "the paper's figures": by_figure,
        "claims": in_words,
        "our figures": figures,
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
