"""Write the exercises without their solutions: `python exercises/without_solutions.py`.

They go into handout/, which git ignores. A solution or an answer is a folded part
of a cell or a page. Hints stay. Nano is left out: its code solves two of the functions to write.
"""

import re
import shutil
from pathlib import Path

import nbformat

EXERCISES = Path(__file__).resolve().parent
SOLUTION = re.compile(
    r"^- a \*\*solution\*\*.*?\n| and a folded solution"  # where a page says that there is one
    r"|^\*\*\[(?:For teachers|Nano)\].*?\n\n"
    r"|<details><summary>(?:Solution|Answer)</summary>.*?</details>\n*",
    re.DOTALL | re.MULTILINE,
)


def write(folder: Path) -> None:
    """Write every notebook, page and module of the exercises into `folder`, made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for page in EXERCISES.glob("*.ipynb"):
        if page.stem == "nano":
            continue
        notebook = nbformat.read(page, as_version=4)
        for cell in notebook.cells:
            cell.source = SOLUTION.sub("", cell.source)
        notebook.cells = [cell for cell in notebook.cells if cell.source]
        nbformat.write(notebook, folder / page.name)
    readme = (EXERCISES / "README.md").read_text(encoding="utf-8")
    (folder / "README.md").write_text(SOLUTION.sub("", readme), encoding="utf-8")
    for module in ("checks.py", "pitfalls.py"):
        shutil.copy(EXERCISES / module, folder)


if __name__ == "__main__":
    place = EXERCISES.parent / "handout"
    write(place)
    print(f"{place}: without solutions and answers. Solutions stay in {EXERCISES}.")
