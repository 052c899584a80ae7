"""The parts of README files that are made of the rest: `python -m scripts.readme` renews them.

README.md has the 13 claims in words; figures/README.md the figures with what draws each,
and every verdict. All are of the recorded run.
"""

import argparse
import sys
from functools import cache

from replication import claims, paths, profiles, results
from replication.run.notebooks import FIGURES, NOTEBOOKS

NONE = "There is no recorded run yet, so there are no verdicts.\n"


@cache
def _verdicts() -> tuple:
    """Those of the recorded run; none without one."""
    recorded = results.archive(paths.RECORDED / profiles.RECORDED)
    if not recorded.by_request:
        return ()
    return tuple(claims.verdicts(claims.gather(profiles.get(profiles.RECORDED), recorded)))


def in_words() -> str:
    """The 13 claims, a row each."""
    return claims.in_words(_verdicts()) if _verdicts() else NONE


def verdicts() -> str:
    """Every verdict as a table."""
    return claims.markdown(_verdicts()) if _verdicts() else NONE


def figures() -> str:
    """A row a figure: the recorded picture, what it shows, what draws it, in how many minutes."""
    lines = ["| figure | shows | notebook | command | minutes (`quick`) |", "|---|---|---|---|---|"]
    for name, (shows, numbers) in FIGURES.items():
        links = [f"[{n}](../notebooks/{NOTEBOOKS[n].file}.ipynb)" for n in numbers]
        minutes, short = sum(NOTEBOOKS[n].minutes for n in numbers), name.removeprefix("figure_")
        picture = f"{profiles.RECORDED}/{name}.png"
        drawn = (paths.ROOT / "figures" / picture).exists()
        cells = [f"[{short}]({picture})" if drawn else short, shows, ", ".join(links)]
        cells += [f"`make figure-{short}`", f"{minutes:g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


PARTS = {  # of which file, between <!-- name --> and <!-- end of name -->
    "README.md": {"claims": in_words},
    "figures/README.md": {"figures": figures, "verdicts": verdicts},
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.readme", description=__doc__)
    parser.parse_args(argv)
    for name, parts in PARTS.items():
        file = paths.ROOT / name
        try:
            text = renewed(file.read_text(encoding="utf-8"), parts)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        file.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
