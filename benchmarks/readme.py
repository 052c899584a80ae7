"""The tables of the README that are made of the rest: `python -m benchmarks.readme` renews them.

They are the verdicts of the recorded run, and the figures with what draws each.
"""

import sys

from lib import claims, paths, profiles, results
from lib.run.notebooks import FIGURES, NOTEBOOKS

NONE = "There is no recorded run yet, so there are no verdicts.\n"
START, END = "<!-- verdicts -->\n", "<!-- end of verdicts -->\n"
HEADER = "| figure | shows | notebook | command | minutes (`quick`) | hardware |\n"


def section() -> str:
    """The verdicts of the recorded run as a table; without one, a sentence that says so."""
    recorded = results.archive(paths.RECORDED / profiles.RECORDED)
    if not recorded.asked:
        return NONE
    return claims.markdown(
        claims.verdicts(claims.gather(profiles.get(profiles.RECORDED), recorded))
    )


def figure_index() -> str:
    """A row a figure: what draws it, how, and in how many minutes."""
    lines = ["|---|---|---|---|---|---|"]
    linked = set()
    for name, (shows, numbers) in FIGURES.items():
        links = {n: f"[{n}](notebooks/{NOTEBOOKS[n].file}.ipynb)" for n in numbers}
        notebooks = ", ".join(n if n in linked else links[n] for n in numbers)
        linked.update(numbers)
        minutes = sum(NOTEBOOKS[n].minutes for n in numbers)
        short = name.removeprefix("figure_")
        cells = (short, shows, notebooks, f"`make figure-{short}`", f"{minutes:g}")
        lines.append(f"| {' | '.join(cells)} | 2 CPU cores |")
    return HEADER + "\n".join(lines) + "\n"


def shown(readme: str, start: str = START, end: str = END) -> str:
    """What stands between two marks of a README. Raises ValueError if they are not there."""
    _, first, rest = readme.partition(start)
    inside, last, _ = rest.partition(end)
    if not (first and last):
        raise ValueError(f"README.md lacks the marks {start.strip()} and {end.strip()}.")
    return inside


def main() -> int:
    file = paths.ROOT / "README.md"
    readme = file.read_text(encoding="utf-8")
    try:
        renewed = readme.replace(START + shown(readme) + END, START + section() + END)
        figures = HEADER + shown(readme, HEADER, "\n\n") + "\n"
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    file.write_text(renewed.replace(figures, figure_index()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
