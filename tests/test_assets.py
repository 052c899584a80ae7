"""Downloads from a local index of wheels made on the spot."""

import hashlib
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from originals import c4_file, table

from lib import paths, storage
from lib.data import sets, wheels
from lib.data.wheels import Asset, AssetError
from lib.models import registry
from replication.measure.request import data_identity


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
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a kernel
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


@pytest.fixture
def package_gone(pip_index, tmp_path, monkeypatch):
    """Of "text" and of "set" the package has a made-up name; the hub, a folder, has "text"."""
    for name in ("text", "set"):
        parts = [part | {"wheel": "no-such-data==1.0"} for part in wheels.ASSETS[name].parts]
        asset = replace(wheels.ASSETS[name], parts=parts)
        monkeypatch.setitem(wheels.ASSETS, name, asset)
    original = {"name": "text", "repository": "owner/text", "file": "t.txt", "revision": "main"}
    monkeypatch.setattr(wheels, "ORIGINALS", {"text": original})
    monkeypatch.setenv("DEEPER_LAYERS_MIRROR", str(tmp_path / "hub"))
    file = tmp_path / "hub" / "owner" / "text" / "t.txt"
    file.parent.mkdir(parents=True)
    file.write_text("some text")
    return file


def test_where_a_package_is_gone_the_same_file_comes_from_the_hub(pip_index, package_gone, capsys):
    """A sentence says both; what is not gone comes from the index as before."""
    pin = {"wheel": "toy-data==1.0", "wheel_sha256": storage.digest(next(pip_index.glob("toy*")))}
    wheels.ASSETS["more"] = Asset(
        "more.txt", hashlib.sha256(b"text").hexdigest(), [pin | {"member": "more.txt"}]
    )
    wheels.fetch(["text", "more"])
    assert wheels.path("text").read_text() == "some text"
    assert wheels.path("more").read_text() == "text"
    assert left() == {"text", "more"}
    said = capsys.readouterr().err
    assert "The package no-such-data==1.0 is gone from the index: took owner/text/t.txt" in said


@pytest.mark.parametrize("case", ["other bytes", "no hub", "no second source"])
def test_a_package_that_is_gone_without_a_second_source_is_a_sentence(package_gone, case):
    name, words = "text", "cannot be had (FileNotFoundError): check the network"
    if case == "other bytes":
        package_gone.write_text("another text")
        words = "owner/text/t.txt has another sha256 than text"
    elif case == "no hub":
        package_gone.unlink()
    else:
        name, words = "set", "set has no second source: copy data/assets/set"
    with pytest.raises(AssetError) as error:
        wheels.path(name)
    assert "The package no-such-data==1.0 is gone from the index, and" in str(error.value)
    assert words in str(error.value)
    assert not wheels.location(name).exists()


def test_where_the_package_of_data_is_gone_it_is_read_from_the_hub(
    pip_index, tmp_path, monkeypatch, capsys
):
    """Texts and questions, from a mirror; results are keyed as those of the hub."""
    names = ["c4", "wiki", "mmlu", "boolq", "arc_easy", "arc_easy_test", "gsm8k"]
    gone = [{"wheel": "no-such-data==1.0", "wheel_sha256": "0" * 64, "member": "x"}]
    for name in names:
        monkeypatch.setitem(wheels.ASSETS, name, Asset("x", "0" * 64, gone))
    hub = tmp_path / "hub"
    monkeypatch.setenv("DEEPER_LAYERS_MIRROR", str(hub))
    c4_file(hub, "train.00000-of-01024", ["to heal on", "more"])
    c4_file(hub, "validation.00000-of-00008", ["to judge"])
    mmlu = {"question": "1 + 1?", "subject": "algebra", "choices": list("1234"), "answer": 1}
    arc = {"id": "a", "question": "Which?", "answerKey": "2"}
    arc["choices"] = {"text": ["this", "that"], "label": ["1", "2"]}
    for split in ("dev", "test"):
        table(hub, f"cais/mmlu/all/{split}", [mmlu])
    for split in ("validation", "test"):
        table(hub, f"allenai/ai2_arc/ARC-Easy/{split}", [arc])
    table(hub, "google/boolq/data/validation", [{"question": "so", "answer": True, "passage": "."}])
    for split in ("train", "test"):
        table(hub, f"openai/gsm8k/main/{split}", [{"question": split, "answer": "#### 1"}])

    assert data_identity("c4", "wheels")["data"] == "wheel:c4"
    with pytest.raises(AssetError, match="package of c4 is gone from the index.*repeat"):
        sets.c4("train", "wheels", 1)
    wheels.fetch([name for name in names if name != "wiki"])
    notice = capsys.readouterr().err
    assert "no-such-data==1.0 is gone from the index: c4 is read from allenai/c4 on" in notice
    assert sets.c4("validation", "wheels", 1) == ["to judge"]
    assert sets.healing_texts("wheels", 2) == ["to heal on", "more"]
    assert sets.mmlu("wheels", 1, 1)["algebra"]["test"] == [mmlu]
    assert sets.questions("boolq", "wheels")[0]["question"] == "so"
    (asked,) = sets.arc_easy_test("wheels", 1)
    assert asked["query"] == "Question: Which?\nAnswer:"
    assert asked["choices"] == ["this", "that"] and asked["gold"] == 1
    assert [rows[0]["question"] for rows in sets.gsm8k("wheels", 1, 1)] == ["train", "test"]
    for name in names:
        if name != "wiki":
            assert data_identity(name, "wheels")["data"] == f"mirror:{sets.HUB[name].repository}"
    with pytest.raises(AssetError, match="wiki has no second source"):
        wheels.path("wiki")


@pytest.mark.parametrize("case", ["no network", "offline"])
def test_without_a_network_no_package_is_said_to_be_gone(package_gone, monkeypatch, case):
    monkeypatch.delenv("PIP_FIND_LINKS")
    words = r"not to look for them \(PIP_NO_INDEX\)"
    if case == "no network":
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        words = "there is no network"
    with pytest.raises(AssetError, match=words) as error:
        wheels.path("text")
    assert "gone" not in str(error.value)


def test_second_sources_are_of_assets_and_of_the_same_file():
    for name, row in wheels.ORIGINALS.items():
        assert wheels.ASSETS[name].file == row["file"]
        assert registry.HUB_ID.fullmatch(row["repository"])
    assert {name for name, of in registry.MODELS.items() if of.source == "asset"} == set(
        wheels.ORIGINALS
    )


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
