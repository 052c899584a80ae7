"""What all notebooks begin and end with: `python -m benchmarks.links` renews these cells.

The first links the notebooks before and after it, the paper's section and the code that it shows;
the last has two exercises of exercises/README.md and the next notebook. The first cell of code
installs the project where a hosted notebook begins with nothing.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from lib import paths
from lib.run.notebooks import NOTEBOOKS

PAPER = "https://arxiv.org/html/2403.17887v1"
SHOWN = {  # the paper's section, its place there (v1), and the code that the notebook shows
    "00": ("abstract", "", "pruning.py"),
    "01": ("section 3.2, layer pruning", "#S3.SS2", "similarity.py"),
    "02": ("section 4.1, question answering", "#S4.SS1", "sweep.py"),
    "03": ("section 4.2, loss and healing", "#S4.SS2", "healing.py"),
    "04": ("section 4.4, a simpler strategy", "#S4.SS4", "blocks.py"),
    "05": ("appendix B.1, prompts", "#A2.SS1", "data/prompts.py"),
    "06": ("appendix B.2, seeds", "#A2.SS2", "healing.py"),
    "07": ("appendix B.3, LoRA rank", "#A2.SS3", "models/adapters.py"),
    "08": ("section 4.3, angular distances", "#S4.SS3", "analysis/islands.py"),
    "09": ("section 5, discussion", "#S5", "measure/inference_cost.py"),
    "10": ("section 5, discussion", "#S5", "evaluation.py"),
    "11": ("section 3.1, intuition", "#S3.SS1", "measure/damage.py"),
    "12": ("section 3.2, layer pruning", "#S3.SS2", "models/linear.py"),
    "13": ("whole", "", "claims/claims.csv"),
}
EXERCISES = paths.ROOT / "exercises" / "README.md"
EXERCISE = re.compile(r"^### (\d\d)\.(\d) (.+)\n\*(\d+) minutes? · (\w+)\*\n\n", re.MULTILINE)
IN_FOOTER = 2
SETUP = "## Setup (no need to read)"
HOSTED = """# Colab, Kaggle: install the project (nobody has tried it there). Elsewhere: nothing.
import os
import subprocess
import sys

if {"COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"} & set(os.environ):
    if not os.path.exists("/tmp/project"):
        address = input("Address of the project's git repository: ")
        subprocess.run(["git", "clone", "--depth", "1", address, "/tmp/project"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "-qe", "/tmp/project"], check=True)
    sys.path.insert(0, "/tmp/project")
"""


@dataclass(frozen=True)
class Exercise:
    """One of exercises/README.md: its notebook, what it asks, and its code (None: without)."""

    notebook: str
    number: str
    title: str
    minutes: int
    difficulty: str
    question: str
    code: str | None
    folded: str  # hint and answer


def exercises() -> list[Exercise]:
    """All exercises, in their order."""
    text = EXERCISES.read_text(encoding="utf-8")
    found = list(EXERCISE.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    made = []
    for match, end in zip(found, ends, strict=True):
        notebook, number, title, minutes, difficulty = match.groups()
        asked, _, folded = text[match.end() : end].partition("<details>")
        question, _, code = asked.partition("```python\n")
        code = code.partition("```")[0] or None
        told = (title, int(minutes), difficulty, question.strip(), code, folded)
        made.append(Exercise(notebook, f"{notebook}.{number}", *told))
    return made


def title(number: str) -> str:
    """The heading of a notebook."""
    cells = _read(number)["cells"]
    lines = (line for cell in cells for line in "".join(cell["source"]).splitlines())
    return next(line for line in lines if line.startswith("# ")).removeprefix("# ")


def header(number: str) -> str:
    section, place, code = SHOWN[number]
    before, after = _neighbours(number)
    minutes = NOTEBOOKS[number].minutes
    figures = [n.removeprefix("figure_").replace("_", " ") for n in NOTEBOOKS[number].figures]
    parts = [before and f"[← {before}]({NOTEBOOKS[before].file}.ipynb)"]
    parts += [f"[the paper]({PAPER}{place}): {section}"]
    parts += [f"code: [lib/{code}](../lib/{code})"]
    parts += [f"figures: {', '.join(figures)}" if figures else ""]
    parts += [f"about {minutes} {'minute' if minutes == 1 else 'minutes'} in `quick`"]
    parts += ["[glossary](README.md#glossary)"]
    parts += [after and f"[{after} →]({NOTEBOOKS[after].file}.ipynb)"]
    return " · ".join(filter(None, parts))


def footer(number: str) -> str:
    lines = ["## Exercises", ""]
    for exercise in [e for e in exercises() if e.notebook == number][:IN_FOOTER]:
        question = " ".join(exercise.question.split())
        mark = "" if exercise.title.endswith("?") else "."
        lines.append(f"- **{exercise.number} {exercise.title}{mark}** {question}")
    lines += ["", "Code, hints and answers: [exercises](../exercises/README.md)."]
    _, after = _neighbours(number)
    if after:
        lines[-1] += f" Next: [{title(after)}]({NOTEBOOKS[after].file}.ipynb)"
    else:
        lines[-1] += " Back to the start: [the tour](00_tour.ipynb)"
    return "\n".join(lines)


def renewed(number: str) -> str:
    """The notebook's file with the cells that all have as they should be."""
    notebook = _read(number)
    cells = [c for c in notebook["cells"] if c["id"] not in ("header", "hosted", "footer")]
    setup = next(i for i, c in enumerate(cells) if "".join(c["source"]).startswith(SETUP))
    code = {"cell_type": "code", "execution_count": None, "outputs": []}
    cells.insert(setup + 1, _cell("hosted", HOSTED.strip()) | code)
    cells = [_cell("header", header(number)), *cells, _cell("footer", footer(number))]
    notebook["cells"] = cells
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def place(number: str) -> Path:
    return paths.NOTEBOOKS / f"{NOTEBOOKS[number].file}.ipynb"


def _read(number: str) -> dict:
    return json.loads(place(number).read_text(encoding="utf-8"))


def _cell(name: str, text: str) -> dict:
    lines = text.splitlines(keepends=True)
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": lines}


def _neighbours(number: str) -> tuple[str | None, str | None]:
    numbers = [None, *NOTEBOOKS, None]
    i = numbers.index(number)
    return numbers[i - 1], numbers[i + 1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.links", description=__doc__)
    parser.parse_args(argv)
    for number in NOTEBOOKS:
        place(number).write_text(renewed(number), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
