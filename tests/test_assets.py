"""Downloads through the real pip, from a local index of wheels made on the spot."""

import os
import zipfile
from dataclasses import replace

import pytest

from lib import paths
from lib.data import wheels
from lib.data.wheels import Asset, AssetError


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
        info = "toy_data-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-data\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(tmp_path / "plain")
    pinned = ("toy-data==1.0", paths.digest(archive))
    plain = tmp_path / "plain" / "toy"
    manifest = {
        "text": Asset(*pinned, "toy/text.txt", paths.digest(plain / "text.txt"), "MIT"),
        "set": Asset(*pinned, "toy/set/", paths.digest(plain / "set"), "MIT"),
    }
    monkeypatch.setattr(wheels, "ASSETS", manifest)
    monkeypatch.setattr(paths, "ASSETS", tmp_path / "assets")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return archive


def left() -> set[str]:
    return {p.name for p in paths.ASSETS.iterdir()} - {".lock"}


def test_fetches_verifies_and_unpacks(index):
    assert wheels.path("text").read_text() == "some text"
    assert (wheels.path("set") / "deep" / "b.txt").read_text() == "b"
    for name in wheels.ASSETS:
        wheels.verify(name)
    assert left() == {"text", "set"}


def test_goes_on_after_an_interruption(index, monkeypatch):
    """What a killed call left is swept up; what it had finished is kept."""
    part = paths.ASSETS / "download.part"
    part.mkdir(parents=True)
    (part / "toy_data-1.0-py3-none-any.whl").write_text("half a file")
    real = wheels._unpack

    def interrupted(archive, asset, target):
        if asset.member.endswith("/"):
            raise KeyboardInterrupt
        real(archive, asset, target)

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
    with pytest.raises(AssetError, match="does not have the pinned sha256"):
        wheels.path("text")
    assert not wheels.location("text").exists()


def test_a_member_that_changed_leaves_nothing(index, monkeypatch):
    other = replace(wheels.ASSETS["text"], sha256="0" * 64)
    monkeypatch.setitem(wheels.ASSETS, "text", other)
    with pytest.raises(AssetError, match="text.txt of toy_data"):
        wheels.path("text")
    assert not wheels.location("text").exists()


def test_no_network_is_one_sentence(index, monkeypatch, capsys):
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.parent / "absent"))
    assert wheels.main() == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("Could not download toy-data==1.0") and "check the network" in said


def test_a_damaged_file_is_named(index):
    wheels.path("text").write_text("other text")
    with pytest.raises(AssetError, match="damaged.*delete it"):
        wheels.verify("text")


def test_unknown_asset():
    with pytest.raises(AssetError, match="Unknown asset 'nope'"):
        wheels.path("nope")


def test_every_asset_has_a_licence_and_a_digest():
    for asset in wheels.ASSETS.values():
        assert len(asset.sha256) == len(asset.wheel_sha256) == 64
        assert asset.licence and "==" in asset.wheel
