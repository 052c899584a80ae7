"""The README's verdicts, from the recorded run: `python -m lib.recorded` brings them up to date."""

import sys
from pathlib import Path

from lib import claims, evidence, paths, verdicts

EVIDENCE = paths.RECORDED / "laptop" / "evidence"
NONE = "There is no recorded run yet, so there are no verdicts.\n"
START, END = "<!-- verdicts -->\n", "<!-- end of verdicts -->\n"


def section(folder: Path = EVIDENCE) -> str:
    """The verdicts of the recorded run as a table; without one, a sentence that says so.

    folder: holds what evidence.save kept. Raises ValueError if that is more than one file.
    """
    files = list(folder.glob("*.json"))
    if not files:
        return NONE
    if len(files) > 1:
        raise ValueError(f"{folder} holds {len(files)} files: keep that of the recorded run only.")
    return verdicts.markdown(claims.verdicts(evidence.load(files[0])))


def shown(readme: str) -> str:
    """What stands between the marks of a README. Raises ValueError if they are not there."""
    before, start, rest = readme.partition(START)
    inside, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"README.md lacks the marks {START.strip()} and {END.strip()}.")
    return inside


def main() -> int:
    file = paths.ROOT / "README.md"
    readme = file.read_text(encoding="utf-8")
    try:
        before, after = (START + text + END for text in (shown(readme), section()))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    file.write_text(readme.replace(before, after), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
