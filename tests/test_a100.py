"""The profile `a100`: every notebook of one model, laid out like the original.

Only the model's sizes, and the counts that --limit and --steps cut, differ from the real run.
"""

import originals
import pytest

from lib.models import registry

pytestmark = pytest.mark.real


def test_every_notebook_of_one_model_in_nf4(tmp_path, monkeypatch):
    """Texts, questions and weights are the mirror's; every point of the curves is there."""
    monkeypatch.setitem(originals.SHARED, "num_hidden_layers", 4)  # healed at two depths
    originals.lay_out(tmp_path, 80, [registry.MODELS["mistral-7b"].source])
    figures = originals.run(tmp_path, "--profile", "a100", "--limit", "4", "--steps", "2")
    assert all(len(table) > 1 for table in figures.values())
    for name in ("figure_2", "figure_3", "figure_6"):
        originals.check_curves(figures[name], ["mistral-7b"])
    scores = originals.records(tmp_path, "scores")
    assert {params["model"] for params in scores} == {"mistral-7b"}
    assert {params["data"].partition(":")[0] for params in scores} == {"mirror"}
