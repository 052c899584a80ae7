"""Files that are written whole or not at all, and digests of them."""

import csv
import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

END = 4096  # bytes


def component(name: str) -> str:
    """`name`, of a model say, as one component of a path: it cannot lead out of its folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[-60:]


def rows(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, each by the names of the columns."""
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fingerprint(folder: Path, is_copy: bool = False) -> str:
    """Changes whenever a file in `folder` is rewritten: names, sizes and times of all.

    is_copy: of a repository, whose files are replaced, not edited. Then it is the same for another
    copy: the end of each file counts instead of the time. What is hidden there does not count: a
    download keeps its notes in `.cache`.
    """
    lines = []
    for file in sorted(filter(Path.is_file, folder.rglob("*"))):
        name, status = str(file.relative_to(folder)), file.stat()
        version = _end(file) if is_copy else status.st_mtime_ns
        if name[0] != ".":
            lines.append(f"{name} {status.st_size} {version}")
    return text_digest("\n".join(lines))


def _end(path: Path) -> bytes:
    """Return the last bytes of a file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - END))
        return file.read()


def digest(target: Path) -> str:
    """sha256 of a file, or of a folder's relative names and files in sorted order."""
    if target.is_file():
        with target.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in target.rglob("*") if p.is_file())
    lines = [f"{file.relative_to(target).as_posix()}\0{digest(file)}\n" for file in files]
    return text_digest("".join(lines))


def text_digest(text: str) -> str:
    """sha256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def listing_digest(digests: dict[str, str]) -> str:
    """sha256 of the lines that `sha256sum` prints of files; digests: sha256 by name."""
    return text_digest("".join(f"{digest}  {name}\n" for name, digest in digests.items()))


def atomic_write(target: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{platform.node()}-{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def kept(file: Path, make: Callable):
    """Return what a JSON file holds; what `make` returns goes into it first, if it is not there."""
    if not file.exists():
        atomic_write(file, json.dumps(make(), indent=1).encode())
    return json.loads(file.read_text())


def first_line(error: Exception) -> str:
    """Return the first line of what an error says; the kind of one that says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A folder to write into: renamed to `target` at the end, deleted after an error."""
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # what an interrupted call may have left
    try:
        yield part
        chmod_readable(part)
        os.replace(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def chmod_readable(folder: Path) -> None:
    """Let whoever may read a folder read its files: safetensors writes them with mode 0600."""
    for file in filter(Path.is_file, folder.rglob("*")):
        file.chmod(folder.stat().st_mode & 0o666)
