"""Curves of healed models: gaps, paired differences, and the model to take away."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from replication import profiles
from replication.analysis import bootstrap
from replication.analysis.curves import Curve
from replication.figures import curves
from replication.measure import distance_maps, experiments, scores

SMOKE = replace(profiles.get("smoke"), c4_sequences=4, arc_easy_questions=4)
NAME = "tiny-random"


@pytest.fixture
def distances(output):
    return distance_maps.of_model(NAME, SMOKE)


def test_a_diverged_healing_has_no_score_and_the_next_job_runs(distances):
    cut = NAME, distances, SMOKE, ["c4"], ["simple"]
    wild = scores.table(experiments.healed(*cut, [2], learning_rate=1e30))
    fine = scores.table(experiments.healed(*cut, [3]))
    assert wild.status.tolist() == ["diverged"] and wild.value.isna().all()
    assert fine.status.tolist() == ["ok"] and fine.value.notna().all()


def test_paired_differences():
    shared = {"model": "m", "task": "c4", "treatment": "healed", "block_size": 2, "n": 3}
    table = pd.DataFrame(
        [
            shared | {"strategy": s, "value": 0, "examples": e, "weights": [1, 1, 1]}
            for s, e in (("simple", [1.0, 2, 3]), ("similarity", [0.5, 1.5, 2.5]))
        ]
    )
    (row,) = bootstrap.paired(table, "strategy", "simple", "similarity").itertuples()
    assert row.difference == -0.5 and row.standard_error == pytest.approx(0, abs=1e-12)
    assert row.pair == "similarity - simple"


def test_in_units_of_chance():
    table = pd.DataFrame({"task": ["c4", "mmlu"], "value": [2.0, 0.5], "standard_error": [1.0, 0.1],
                          "chance": [4.0, 0.25]})  # fmt: skip
    scaled = curves.in_units_of_chance(table)
    assert scaled.value.tolist() == [0.5, 0.5] and scaled.chance.tolist() == [1.0, 0.25]
    assert np.allclose(scaled.standard_error, [0.25, 0.1])


def test_a_loss_has_lost_all_at_chance_and_no_more_beyond():
    """Of 2 nats, with ln V = 10: 6 has lost half, 10 all, and 18 is surer, not more ignorant."""
    shared = {"fractions": np.array([0, 0.1, 0.2, 0.3, 0.4]), "gap": 10.0, "n": 4}
    losses = np.array([[2.0, 1, 6, 10, 18], [4.0, 4, 7, 10, 12]])
    loss = Curve(values=losses, floor=10.0, is_loss=True, **shared)
    np.testing.assert_allclose(loss.fraction_lost, [[0, -1 / 8, 1 / 2, 1, 1], [0, 0, 1 / 2, 1, 1]])
    accuracies = np.array([[0.8, 0.9, 0.5, 0.2, 0.05]])
    score = Curve(values=accuracies, floor=0.2, is_loss=False, **shared)
    np.testing.assert_allclose(
        score.fraction_lost, [[0, -1 / 6, 1 / 2, 1, 5 / 4]]
    )  # below the floor
