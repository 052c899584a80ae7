"""Files of the hub: the documents and questions of the pinned ones; and errors in one sentence."""

import huggingface_hub
import pandas as pd
import pytest
from originals import c4_file

from lib.data import sets

NAMES = {"train": "train.00000-of-01024", "validation": "validation.00000-of-00008"}
TEXTS = [f"Document {i}\nä\u2028 and \\more\\u00e9 \U0001f600" for i in range(5)]


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Files like the hub's; with line ends inside of documents."""
    for split, name in NAMES.items():
        c4_file(tmp_path, name, [f"{text} of {split}" for text in TEXTS])
        c4_file(tmp_path, name.replace("00000", "00001"), ["a later file"])
    monkeypatch.setenv("DEEPER_LAYERS_MIRROR", str(tmp_path))
    return tmp_path / "allenai" / "c4"


@pytest.mark.parametrize("split", NAMES)
def test_documents_are_the_first_ones_of_the_split(mirror, split):
    """Fewer than are asked for are a sentence, from the hub and from the wheels."""
    expected = [f"{text} of {split}" for text in TEXTS]
    for count in (1, 5):
        assert sets.c4(split, "hub", count) == expected[:count]
    for source, count in {"hub": 5, "wheels": len(sets.c4(split, "wheels", None))}.items():
        sentence = f"{count} documents in its {split} split here, not {count + 1}"
        with pytest.raises(sets.DataError, match=sentence):
            sets.c4(split, source, count + 1)


def test_questions_are_of_the_pinned_files(tmp_path, monkeypatch):
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
        "repository": row.repository,
        "repo_type": "dataset",
        "revision": row.revision,
        "allow_patterns": "data/validation-*.parquet",
    }


def test_a_file_that_is_cut_short_is_named(mirror):
    file = mirror / f"en/c4-{NAMES['train']}.json.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        sets.DataError, match="allenai/c4/en/c4-train.00000.*delete a file that was"
    ):
        sets.c4("train", "hub", 5)
