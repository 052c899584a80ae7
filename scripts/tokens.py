"""Count what must be understood: `python -m scripts.tokens`, tokens of code by folder.

A token is a name, an operator, a number or a string. Comments, docstrings and blank lines are free.
Prints tokens, lines of code and tokens a line of each group of folders that has a bound, and every
file that is denser than 13 tokens a line. `--check` ends with 1 where a bound does not hold.
"""

import argparse
import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COUNTED = {tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING}
MOST = {  # tokens of folders; the aim of the first two is 29,000 and 80,000
    ("lib",): 32_500,
    ("lib", "replication"): 99_500,
    ("tests",): 75_000,
    ("benchmarks", "scripts"): 18_000,
}
DENSITY = 11.0  # tokens a line, the most on average of such a group
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
        """Return tokens a line."""
        return self.tokens / max(self.lines, 1)


def docstring_lines(source: str) -> set[int]:
    """Return the numbers of all lines that docstrings stand on."""
    lines = set()
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines |= set(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def count(source: str) -> Count:
    """Return the tokens of code of a file, and their lines."""
    docstrings = docstring_lines(source)
    rows = [
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type in COUNTED and token.start[0] not in docstrings
    ]
    return Count(len(rows), len(set(rows)))


def files(folder: str) -> Iterator[tuple[Path, Count]]:
    """Return every Python file below a folder of the project, with its count."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        yield file, count(file.read_text(encoding="utf-8"))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.tokens", description=__doc__)
    parser.add_argument("--check", action="store_true", help="end with 1 where a bound is broken")
    check, broken = parser.parse_args(argv).check, False
    counts = {folder: list(files(folder)) for folders in MOST for folder in folders}
    for folders, most in MOST.items():
        total = Count()
        for folder in folders:
            total = sum((in_file for _, in_file in counts[folder]), total)
        broken |= total.tokens > most or round(total.density, 1) > DENSITY
        print(
            f"{' + '.join(folders)}: {total.tokens:,} tokens (at most {most:,}), {total.lines:,} "
            f"lines of code, {total.density:.1f} a line (at most {DENSITY:.0f})"
        )
    for file, in_file in chain.from_iterable(counts.values()):
        if in_file.lines >= SHORT and in_file.density > DENSE:
            print(f"dense: {file.relative_to(ROOT)}, {in_file.density:.1f} tokens a line")
    return int(check and broken)


if __name__ == "__main__":
    sys.exit(main())
