"""C4 from files: the documents that streaming gives, in its order; and errors in one sentence."""

import datasets
import huggingface_hub
import pandas as pd
import pytest
from originals import c4_file

from lib.data import sets

NAMES = {
    "train": [f"train.{number:05}-of-01024" for number in range(3)],
    "validation": [f"validation.{number:05}-of-00008" for number in range(2)],
}
FILES = {split: [f"en/c4-{name}.json.gz" for name in names] for split, names in NAMES.items()}
LENGTHS = (5, 3, 4)  # documents of each file


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Files like the hub's; with line ends inside of documents."""
    for names in NAMES.values():
        for name, length in zip(names, LENGTHS, strict=False):
            texts = [f"Document {i} of {name}\nä\u2028 and more" for i in range(length)]
            c4_file(tmp_path / "hub", name, texts)
    monkeypatch.setenv("DEEPER_LAYERS_MIRROR", str(tmp_path / "hub"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "hub" / "allenai" / "c4"


@pytest.mark.parametrize("split", NAMES)
def test_documents_are_those_of_streaming_in_its_order(mirror, split):
    files = {split: f"en/c4-{split}.*.json.gz"}
    rows = datasets.load_dataset(str(mirror), data_files=files, split=split, streaming=True)
    streamed = [row["text"] for row in rows]
    for count in (1, 5, 6, 8):  # a part of a file, one, more than one
        assert sets.c4(split, "hub", count) == streamed[:count]
    assert sets.healing_texts("hub", 12) == sets.c4("train", "hub", 12)


def test_a_file_is_fetched_when_its_turn_comes(mirror, tmp_path, monkeypatch):
    fetched = []

    def download(repository, name, **options):
        fetched.append((repository, name, options))
        return str(mirror / name)

    monkeypatch.delenv("DEEPER_LAYERS_MIRROR")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    pinned = {"repo_type": "dataset", "revision": sets.HUB["c4"]["revision"]}
    of_train = [("allenai/c4", name, pinned) for name in FILES["train"]]
    sets.c4("train", "hub", 5)
    assert fetched == of_train[:1]
    sets.c4("train", "hub", 9)
    assert fetched[1:] == of_train[:3]


def test_questions_are_of_the_pinned_files(mirror, tmp_path, monkeypatch):
    """Downloaded as files, which are found again where there is no hub."""
    options_of_hub = {}

    def download(repository, **options):
        options_of_hub.update(options, repository=repository)
        return str(tmp_path)

    rows = [{"question": "Is it?", "passage": "It is.", "answer": True}] * 3
    (tmp_path / "data").mkdir()
    pd.DataFrame(rows).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert sets.questions("boolq", "hub", 2) == rows[:2]
    row = sets.HUB["boolq"]
    assert options_of_hub == {
        "repository": row["repository"],
        "repo_type": "dataset",
        "revision": row["revision"],
        "allow_patterns": "data/validation-*.parquet",
    }


def test_too_few_documents_are_one_sentence(mirror):
    with pytest.raises(sets.DataError, match="put en/c4-validation.00002-of-00008.json.gz into"):
        sets.c4("validation", "hub", 9)


def test_a_file_that_is_cut_short_is_named(mirror):
    file = mirror / FILES["train"][0]
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(sets.DataError, match=f"{file} cannot be read .*: delete it"):
        sets.c4("train", "hub", 5)
