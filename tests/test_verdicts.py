"""Definitions behind verdicts: what a statistic leaves out, and where it cannot tell."""

import numpy as np
import pytest
from test_claims import SCORES, a_run, changed, grows, verdict

from replication import claims
from replication.analysis import statistics
from replication.analysis.bootstrap import RESAMPLES, ci95_max
from replication.claims.bounds import CRITERIA, judged

SIMPLE_LOSS = SCORES["c4", "simple", "healed"]
SIMILAR_LOSS = SCORES["c4", "similarity", "healed"]


def test_a_depth_where_both_strategies_drop_the_same_block_does_not_judge_claim_7c():
    def same_at_half(fraction):
        same = abs(fraction - 0.5) < 1e-9
        return (SIMILAR_LOSS if same else SIMPLE_LOSS)(fraction)

    whole = verdict(a_run(), "7c")
    same = verdict(a_run(**changed("c4", "simple", "healed", same_at_half)), "7c")
    assert (whole.direction, same.direction) == ("agrees", "agrees")
    assert same.statistic > 0


def test_nothing_but_same_blocks_cannot_tell_claim_7c():
    one = verdict(a_run(**changed("c4", "simple", "healed", SIMILAR_LOSS)), "7c")
    assert one.confidence == "can't tell" and np.isnan(one.statistic)


def test_claim_3b_is_of_the_healed_line_alone():
    """Its share of variance beyond a line is the same, however the unhealed loss jumps."""
    runs = [
        verdict(a_run(**changed("c4", "similarity", "unhealed", grows(0.5, jump=jump))), "3b")
        for jump in (4, 8)
    ]
    assert runs[0].statistic == runs[1].statistic < CRITERIA["3b"].most
    assert [run.direction for run in runs] == ["agrees", "agrees"]


def test_claim_3b_is_not_testable_where_the_unhealed_loss_does_not_jump():
    for healed in (grows(0.3), grows(0.3, jump=8)):  # straight or not
        both = SCORES | {
            ("c4", "similarity", "unhealed"): grows(3.0),
            ("c4", "similarity", "healed"): healed,
        }
        one = verdict(a_run(scores=both), "3b")
        assert one.confidence == "not testable here" and "does not jump" in one.why


def test_the_share_that_a_line_leaves_by_hand():
    """Depths 0 to 5, losses 0 0 0 1 1 1: a line leaves 8/35 of their variance, 1/4.

    The slope is (3/4) / (35/12) = 9/35, so the line explains (9/35)² · 35/12 = 27/140, and
    (1/4 - 27/140) / (1/4) = 8/35 is left.
    """
    line = statistics.Curve(
        fractions=np.arange(6.0),
        values=np.tile([0.0, 0, 0, 1, 1, 1], (2, 1)),
        floor=5.0,
        gap=9.0,
        n=4,
        is_loss=True,
    )
    assert statistics.bend(line, line)[0] == pytest.approx(8 / 35)
    straight = statistics.Curve(np.arange(6.0), np.tile(np.arange(6.0), (2, 1)), 9.0, 9.0, 4, True)
    assert statistics.bend(line, straight)[0] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "losses, times",
    [
        ([3, 3.1, 3.1, 6, 9, 10], None),  # 3 / (7 / 5): 2.1
        ([0, 0, 0, 1, 1, 1], None),
        ([0, 1, 2, 3, 4, 5], "1.0"),
        ([0, 0.1, 0.2, 0.4, 0.8, 2], "1.0"),  # the last step may be growth
    ],
)
def test_a_loss_jumps_if_its_largest_step_is_twice_the_even_one(losses, times):
    line = statistics.Curve(np.arange(6.0), np.tile(losses, (2, 1)), 20.0, 9.0, 4, True)
    said = statistics.no_jump(line, line)
    assert said == "" if times is None else f"step is {times} times" in said


def test_an_extreme_of_many_depths_is_bounded_beyond_the_last_resample():
    """Of 64 depths the corrected level, 0.0004, lies beyond 1,000 resamples."""
    draw = np.random.default_rng(0)
    values = np.concatenate([np.zeros((1, 64)), draw.normal(size=(RESAMPLES, 64))])
    _, low, _ = ci95_max(values, largest=True)
    least = values[1:].min(axis=0).max()
    assert low < least
    assert low == pytest.approx(-3.36, abs=0.25)  # of a normal at 0.025 / 64
    few = ci95_max(values[:, :25], largest=True)
    assert few[1] == values[1:, :25].min(axis=0).max()  # still the least resample


def test_claims_in_words_count_their_verdicts():
    """A claim of two models is mixed where they differ; one that was not run says so."""
    agrees, differs = (0.4, 0.35, 0.45), (0.8, 0.7, 0.9)
    verdicts = [
        judged("1", "SmolLM2-135M", "mmlu", agrees, {"mmlu": 90}),
        judged("1", "Phi-2", "arc_easy", differs, {"arc_easy": 90}),
        judged("4a", "Phi-2", "", (-0.1, -0.2, -0.05), {"texts": 90}),
        judged("4b", "Phi-2", "", (0.5, 0.2, 0.9), {"texts": 9}),
    ]
    first, *others = claims.in_words(verdicts).splitlines()[2:]
    assert first.endswith(
        "| **mixed**: 1 for it (1 decided), 1 against it (1 decided) "
        "| SmolLM2-135M (MMLU); Phi-2 (ARC-Easy) |"
    )
    assert others[2].endswith("| **agrees**: 1 for it (1 decided), 1 open | Phi-2 |")
    assert others[0].endswith("| not measured |  |")
