"""A reader's own model: a folder, by its path from where the reader is."""

from conftest import stored, tiny

from replication import __main__ as run
from replication import measure, paths, profiles
from replication.measure import request


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


def test_a_map_of_ones_own_texts(tmp_path, output):
    """As in `make prune`, every eighth text only judges. Other texts are another result."""
    file = tmp_path / "notes.txt"
    file.write_text("\n".join(map(str, range(16))))
    maps, profile = measure.distances(profiles.get("smoke", texts=str(file)))
    assert maps["tiny-random"].num_sequences == 14
    before = request.similarity("tiny-random", profile)
    file.write_text("changed")
    assert request.similarity("tiny-random", profile) != before
