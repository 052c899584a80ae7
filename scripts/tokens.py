"""Count what must be understood: `python -m scripts.tokens`, tokens of code by room.

A token is a name, an operator, a number or a string. Comments, docstrings and blank lines are free.
Prints tokens, lines of code and tokens a line of lib, replication and tests, and every file that is
denser than 13 tokens a line.
"""

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTED = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
MOST = {"lib": 28_000, "lib + replication": 72_000, "tests": 80_000}  # tokens
DENSE, SHORT = 13.0, 40  # tokens a line that are too many; a file of fewer lines may have them


@dataclass(frozen=True)
class Count:
    """Tokens of code, and the lines that they stand on."""

    tokens: int = 0
    lines: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.tokens + other.tokens, self.lines + other.lines)

    @property
    def density(self) -> float:
        """Tokens a line."""
        return self.tokens / max(self.lines, 1)


def docstring_lines(source: str) -> set[int]:
    """The numbers of all lines that docstrings stand on."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines |= set(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def count(source: str) -> Count:
    """The tokens of code of a file."""
    docstrings = docstring_lines(source)
    rows = [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type in COUNTED and token.start[0] not in docstrings
    ]
    return Count(len(rows), len(set(rows)))


def files(folder: str) -> Iterator[tuple[Path, Count]]:
    """Every Python file below a folder of the project, with its count."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        yield file, count(file.read_text(encoding="utf-8"))


def main() -> int:
    counts, dense = {}, []
    for folder in ("lib", "replication", "tests"):
        of_files = list(files(folder))
        counts[folder] = sum((of_file for _, of_file in of_files), Count())
        if folder != "tests":
            dense += [
                (file.relative_to(ROOT), of_file)
                for file, of_file in of_files
                if of_file.lines >= SHORT and of_file.density > DENSE
            ]
    counts["lib + replication"] = counts["lib"] + counts["replication"]
    for name, of_folder in counts.items():
        bound = f" (at most {MOST[name]:,})" if name in MOST else ""
        print(
            f"{name}: {of_folder.tokens:,} tokens{bound}, {of_folder.lines:,} lines of code, "
            f"{of_folder.density:.1f} a line"
        )
    for file, of_file in dense:
        print(f"dense: {file}, {of_file.density:.1f} tokens a line")
    return 0


if __name__ == "__main__":
    sys.exit(main())
