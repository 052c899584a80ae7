"""The profiles `paper` and `a100`: models under their own names, laid out like the originals.

Only the models' sizes, and the counts that --limit and --steps cut, differ from the real run.
"""

import originals
import pytest
from conftest import Distances
from originals import MODELS, check_curves, lay_out, own, records, run

from lib.models import registry
from replication import profiles
from replication.measure import experiments
from replication.profiles.recipes import PUBLISHED

pytestmark = pytest.mark.real
PAPERS = ("01", "02", "03", "04", "05", "06")  # 07 doubles the healings; its requests are tested
PROFILE = profiles.PROFILES["paper"]
PAPER = PROFILE.models


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A mirror of the paper's models."""
    root = tmp_path_factory.mktemp("paper")
    lay_out(root, 60, MODELS)
    return root


@pytest.fixture(scope="module")
def figures(root):
    return run(root, "--profile", "paper", "--limit", "2", "--steps", "1", "--only", *PAPERS)


def test_the_figures_are_about_the_papers_models(figures):
    """Seven models; ablations of the models that the paper names."""
    for name in ("figure_2", "figure_3", "figure_6"):
        check_curves(figures[name], PAPER)
    ablated = {name: set(own(figures[f"figure_{name}"]).model) for name in ("7", "8", "1c", "5")}
    assert [*ablated.values()] == [{"llama-2-13b"}] * 2 + [{"llama-2-70b"}] * 2
    ranked = [name for name in PAPER if experiments.ranks(name, Distances(), PROFILE)]
    assert ranked == ["llama-2-7b", "llama-2-70b", "mistral-7b"]
    assert set(figures["figure_3"].unit) == {"nats / ln V"}


def test_each_model_is_healed_by_its_own_recipe(root, figures):
    recipes = [(params["model"], params["recipe"]) for params in records(root, "healing")]
    assert {name for name, _ in recipes} == {*PAPER}
    for name, recipe in recipes:
        published = PUBLISHED[name]
        assert not recipe["packed"]
        for field in ("max_tokens", "learning_rate"):
            assert recipe["seed"] or recipe[field] == published[field]
    healed = own(figures["figure_2"]).query("treatment == 'healed'")
    for name, rows in healed.groupby("model"):
        assert set(rows["rank"]) == {PUBLISHED[name]["rank"]}


def test_every_notebook_of_one_model_in_nf4(tmp_path, monkeypatch):
    """Of `a100`: texts, questions and weights are the mirror's; every point of curves is there."""
    monkeypatch.setitem(originals.SHARED, "num_hidden_layers", 4)  # healed at two depths
    lay_out(tmp_path, 80, [registry.MODELS["mistral-7b"].source])
    figures = run(tmp_path, *"--profile a100 --models mistral-7b --limit 4 --steps 2".split())
    assert all(len(table) > 1 for table in figures.values())
    for name in ("figure_2", "figure_3", "figure_6"):
        check_curves(figures[name], ["mistral-7b"])
    scores = records(tmp_path, "scores")
    assert {params["model"] for params in scores} == {"mistral-7b"}
    assert {params["data"].partition(":")[0] for params in scores} == {"mirror"}
