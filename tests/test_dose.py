"""Dose and response: the gap that is left is a share of that of the data."""

import numpy as np
import pandas as pd
import pytest
from conftest import score

from replication.beyond import dose

TOKENS = np.array([16, 32, 64, 128, 256, 512]) * 1024


def loss(tokens, end=3.0, exponent=0.5):
    return end + 200 * np.asarray(tokens, float) ** -exponent


def doses(**ends) -> pd.DataFrame:
    """Falling losses, a line a strategy, the same noise of texts on each point; unhealed at 0."""
    noise = np.random.default_rng(0).normal(0, 0.2, 100)
    unhealed = {"similarity": 7.0, "simple": 15.0}
    rows = []
    for strategy, end in ends.items():
        for tokens in (0, *TOKENS):
            examples = noise + (loss(tokens, end) if tokens else unhealed[strategy])
            columns = {"strategy": strategy, "tokens": tokens, "task": "c4", "chance": 10.8}
            row = score(6, 0, examples=examples, **columns)
            rows.append(row | {"value": examples.mean()})
    return pd.DataFrame(rows)


def test_the_gap_is_a_share_of_what_the_cuts_leave_up_to_chance():
    table = doses(similarity=3.0, simple=3.4)
    gaps = dose.gap_left(table).set_index("tokens")
    assert gaps.gap[0] == pytest.approx(10.8 - table.value[0], abs=0.01)
    assert gaps.share[0] == 1
    last = gaps.loc[TOKENS[-1]]
    assert last.gap == pytest.approx(0.4)
    assert last.share == pytest.approx(0.4 / gaps.gap[0])


def test_while_a_healed_loss_is_above_that_of_guessing_there_is_no_share():
    gaps = dose.gap_left(doses(similarity=3.0, simple=9.5))  # of 16 K tokens 11.1
    assert gaps[gaps.share.isna()].tokens.tolist() == [TOKENS[0]]
