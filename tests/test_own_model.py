"""A reader's own model: a folder, by its path from where the reader is."""

from conftest import stored, tiny

from replication import __main__ as run
from replication import paths, profiles


def test_a_folder_is_one_model_for_the_command_its_jobs_and_a_kernel(tmp_path, monkeypatch):
    """Also one that is called as on the hub; jobs and kernels start in the checkout.

    A name of models.csv stays that beside a folder so called.
    """
    stored(tiny("llama"), tmp_path / "my-org" / "my-model")
    batches = []
    monkeypatch.setattr(run, "run", lambda batch, engine: batches.append(batch) or 0)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi-2").mkdir()
    assert profiles.get("smoke", "phi-2 qwen-7b").models == ("phi-2", "qwen-7b")
    assert run.main(["--profile", "smoke", "--models", "my-org/my-model", "--only", "01"]) == 0
    (batch,) = batches
    monkeypatch.chdir(paths.ROOT)
    kernels = profiles.get("smoke", batch.parameters["MODELS"])
    jobs = run.arguments([*batch.command[len(run.COMMAND) :], "--job", "my-model-map"]).models
    assert batch.profile == kernels and list(kernels.models) == jobs
    assert jobs == [str(tmp_path / "my-org" / "my-model")]
