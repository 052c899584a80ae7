"""Dose and response: the gap that is left is that of the data; the figure is drawn from a run."""

import numpy as np
import pandas as pd
import pytest

from replication import figures, measure, profiles
from replication.beyond import dose

TOKENS = np.array([16, 32, 64, 128, 256, 512]) * 1024


def loss(tokens, end=3.0, exponent=0.5):
    return end + 200 * np.asarray(tokens, float) ** -exponent


def doses(n=60, chance=10.8, **ends) -> pd.DataFrame:
    """Falling losses, a line a strategy, the same noise of texts on each point; unhealed at 0."""
    noise = np.random.default_rng(0).normal(0, 0.2, n)
    rows = []
    for strategy, end in ends.items():
        for tokens in (0, *TOKENS):
            examples = (loss(tokens, end) if tokens else 15.0 - (strategy != "simple") * 8) + noise
            row = {"model": "m", "task": "c4", "strategy": strategy, "block_size": 6, "n": n}
            row |= {"treatment": "healed" if tokens else "unhealed", "chance": chance}
            row |= {"tokens": tokens, "value": examples.mean(), "examples": examples}
            rows.append(row | {"weights": np.ones(n)})
    return pd.DataFrame(rows)


def test_the_gap_is_a_share_of_what_the_cuts_leave_up_to_chance():
    gaps = dose.gap_left(doses(similarity=3.0, simple=3.4)).set_index("tokens")
    assert gaps.gap[0] == pytest.approx(10.8 - doses(similarity=3.0).value[0], abs=0.01)
    assert gaps.gap[TOKENS[-1]] == pytest.approx(0.4)
    assert gaps.share[TOKENS[-1]] == pytest.approx(0.4 / gaps.gap[0])
    assert gaps.share[0] == 1


def test_where_simple_pruning_is_the_better_cut_there_is_no_share():
    table = doses(similarity=3.0, simple=3.4)
    swapped = table.strategy.map({"similarity": "simple", "simple": "similarity"})
    gaps = dose.gap_left(table.assign(strategy=swapped))
    assert gaps.gap.notna().all() and gaps.share.isna().all() and gaps.share_low.isna().all()


def test_while_a_healed_loss_is_above_that_of_guessing_there_is_no_share():
    gaps = dose.gap_left(doses(similarity=3.0, simple=9.5))  # of 16 K tokens 11.1
    assert gaps[gaps.share.isna()].tokens.tolist() == [TOKENS[0]]


def test_a_run_is_measured_and_its_trainings_are_shown_step_by_step(output):
    maps, profile = measure.distances(profiles.get("smoke", limit=4))
    table = measure.table(dose.doses, maps, profile)
    assert set(table.treatment) == {"unpruned", "unhealed", "healed", "control"}
    assert set(table.steps) == {0, *profile.dose_steps} and table.value.notna().all()
    assert (table.tokens == table.steps * profile.heal_batch * profile.heal_tokens).all()
    assert dose.figure_dose(table, dose.gap_left(table)).table.gap.notna().any()
    healings = measure.table(dose.trainings, maps, profile)
    lengths = set(zip(healings.strategy, healings.block_size, healings.steps, strict=True))
    assert len(lengths) == len(healings)  # none twice, although the longest dose is of figure 1d
    dosed = {strategy for strategy, _, steps in lengths if steps in profile.dose_steps}
    assert dosed == {"similarity", "simple", "none"}
    sizes = profile.healed_sizes(maps["tiny-random"].num_layers)
    assert {n for _, n, steps in lengths if steps == profile.heal_steps} == {0, *sizes}
    assert healings.losses.map(len).tolist() == healings.steps.tolist()
    drawn = figures.figure_training(healings).table
    assert drawn.loss.tolist() == pytest.approx(np.concatenate(healings.losses))
