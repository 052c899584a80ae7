"""A reader's own model: a folder, by its path from where the reader is."""

import pytest
from conftest import stored, tiny

from lib import similarity
from lib.data import sets
from lib.models import files
from lib.prune import Options, steps
from replication import __main__ as run
from replication import figures, measure, paths, profiles, tables
from replication.measure import request
from replication.show import explorer


def test_a_folder_is_one_model_for_the_command_its_jobs_and_a_kernel(tmp_path, monkeypatch):
    """Also one that is called as on the hub; jobs and kernels start in the checkout.

    A name of models.csv stays that beside a folder so called.
    """
    stored(tiny("llama"), tmp_path / "my-org" / "my-model")
    texts = tmp_path / "notes.txt"
    texts.write_text("\n".join(map(str, range(16))))
    batches = []
    monkeypatch.setattr(run, "run", lambda batch, engine: batches.append(batch) or 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi-2").mkdir()
    assert profiles.get("smoke", "phi-2 qwen-7b").models == ("phi-2", "qwen-7b")
    own = ["--models", "my-org/my-model", "--texts", "notes.txt"]
    assert run.main(["--profile", "smoke", *own, "--only", "01"]) == 0
    (batch,) = batches
    monkeypatch.chdir(paths.ROOT)
    given = batch.parameters
    kernels = profiles.get("smoke", given["MODELS"], texts=given["TEXTS"])
    job = run.arguments([*batch.command[len(run.COMMAND) :], "--job", "my-model-map"])
    assert batch.profile == kernels
    assert job.models == list(kernels.models) == [str(tmp_path / "my-org" / "my-model")]
    assert job.texts == kernels.source == str(texts)


def test_a_file_that_is_unpacked_is_not_locked(tmp_path, monkeypatch):
    """A shared checkout may be read-only."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(files, "unpacked", lambda *_: tmp_path)
    monkeypatch.setattr(files, "FileLock", None)
    assert files.local_folder(files.resolve(str(tmp_path / "model.gguf"))) == tmp_path


def test_a_map_of_ones_own_texts(tmp_path, output):
    """As in `make prune`, every eighth text only judges. Other texts are another result."""
    file = tmp_path / "notes.txt"
    file.write_text("\n".join(map(str, range(16))))
    maps, profile = measure.distances(profiles.get("smoke", texts=str(file)))
    assert maps["tiny-random"].num_sequences == 14
    before = request.similarity("tiny-random", profile)
    file.write_text("changed")
    assert request.similarity("tiny-random", profile) != before


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The sequences whose last tokens are read for distances, as text."""
    sequences, states = [], similarity.last_token_states

    def noted(model, batch):
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            letters = [chr(33 + number - 3) for number in ids[mask.bool()].tolist()]
            sequences.append("".join(letters[1:]))  # without the token of a beginning
        return states(model, batch)

    monkeypatch.setattr(similarity, "last_token_states", noted)
    return sequences


SENTENCES = [f"{number}{'abcdefgh' * (number % 5)}." for number in range(64)]


@pytest.mark.parametrize("way", ["prune", "figure-4"])
def test_full_stops_do_not_choose_for_short_texts(way, base, small, tmp_path, output, read):
    """Each text is cut anywhere, at the same place in each call. The map says so."""
    file = tmp_path / "notes.txt"
    file.write_text("\n".join(SENTENCES))
    profile = profiles.get("smoke", small, texts=str(file))
    for _ in range(2):
        if way == "prune":
            steps.choose(Options(small, layers=2, texts=str(file)), *base)
        else:
            measure.distance_maps._rows(request.similarity(small, profile).params)
    first, second = read[: len(read) // 2], read[len(read) // 2 :]
    assert first == second
    assert all(any(text.startswith(part) for text in SENTENCES) for part in first)
    stops = sum(part.endswith(".") for part in first)
    assert 0 < stops < len(first) / 2 and all(first)
    if way == "figure-4":
        maps, _ = measure.distances(profile)
        picture = figures.figure_4(maps)
        figures.save(picture, "figure_4", profile)
        said = [explored.source for explored in explorer.maps().values()]
        said = [*said, *(text.get_text() for text in picture.texts)]
        assert sum("notes.txt" in text and "cut at a random place" in text for text in said) == 2


def test_maps_of_c4_read_whole_texts_as_the_papers_and_prune_does_not(base, small, output, read):
    profile = profiles.get("smoke", small)
    measure.distances(profile)
    begun = sets.c4("validation", "wheels", profile.similarity_sequences)
    whole = {len(base[1](text).input_ids[: profile.similarity_tokens]) for text in begun}
    assert {len(part) + 1 for part in read} == whole
    (said,) = {of.source for label, of in explorer.maps().items() if "your run" in label}
    assert "random" not in said
    assert "cut_at_random" not in tables.read("similarity", profile).request[0]
    read.clear()
    steps.choose(Options(small, layers=2), *base)
    assert len({len(part) for part in read}) > 16
