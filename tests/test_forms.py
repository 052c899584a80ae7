"""What is left of the lead of each way to ask."""

import numpy as np
import pandas as pd
import pytest
from conftest import score

from replication import analysis


def table(form: str, kept: list[int]) -> pd.DataFrame:
    """Questions of four choices, of which the first `kept[d]` are right at depth d."""
    rows = [score(depth, right) for depth, right in enumerate(kept)]
    columns = {"questions": "mmlu", "form": form, "task": form}
    return pd.DataFrame(rows).assign(chance=0.25, majority=None, **columns)


def test_the_share_kept_of_both_forms_and_their_difference():
    by_letter = table("letters", [75, 25, 25])
    by_content = table("content", [75, 75, 50])
    shares = analysis.kept(pd.concat([by_letter, by_content])).set_index("form")
    assert shares.kept["letters"].tolist() == pytest.approx([0, 0])
    assert shares.kept["content"].tolist() == pytest.approx([1, 0.5])
    assert shares.apart["letters"].isna().all()
    assert shares.apart["content"].tolist() == pytest.approx([1, 0.5])
    assert (shares.apart_low["content"] > 0).all()


def test_the_forms_are_compared_at_the_same_cuts():
    """Where one form was not asked at a depth, as after a time limit."""
    by_letter = table("letters", [75, 60, 50, 25])
    by_letter = by_letter[by_letter.block_size != 2]
    by_content = table("content", [75, 60, 50, 25])
    shares = analysis.kept(pd.concat([by_letter, by_content])).set_index("form")
    differences = shares.apart["content"].tolist()
    assert differences == pytest.approx([0, np.nan, 0], nan_ok=True)
