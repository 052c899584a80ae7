"""Definitions behind verdicts: what a statistic leaves out, and where it cannot tell."""

import numpy as np
from synthetic_runs import SCORES, a_run, changed, grows, verdict

from lib.models import registry
from replication import claims, profiles, tables
from replication.analysis.curves import SIGNAL
from replication.claims import checks
from replication.claims.bounds import verdict_of

SIMPLE_LOSS = SCORES["c4", "simple", "healed"]
SIMILAR_LOSS = SCORES["c4", "similarity", "healed"]


def test_depths_where_both_strategies_drop_the_same_block_do_not_judge_claim_7c():
    """Nothing but such depths cannot tell."""

    def same_at_half(fraction):
        same = abs(fraction - 0.5) < 1e-9
        return (SIMILAR_LOSS if same else SIMPLE_LOSS)(fraction)

    same = verdict(a_run(**changed("c4", "simple", "healed", same_at_half)), "7c")
    assert same.direction == "agrees" and same.statistic > 0
    never = verdict(a_run(**changed("c4", "simple", "healed", SIMILAR_LOSS)), "7c")
    assert never.confidence == "can't tell" and np.isnan(never.statistic)


def test_claim_3b_is_not_testable_where_the_unhealed_loss_does_not_jump():
    both = SCORES | {
        ("c4", "similarity", "unhealed"): grows(3.0),
        ("c4", "similarity", "healed"): grows(0.3, jump=8),
    }
    one = verdict(a_run(scores=both), "3b")
    assert one.confidence == "not testable here" and "does not jump" in one.why


def test_claims_in_words_say_what_is_decided_where_they_are_mixed():
    """A single part is not named; a claim that was not run says so."""
    verdicts = [
        verdict_of("1", "SmolLM2-135M", "mmlu", (0.4, 0.35, 0.45), {"mmlu": 90}),
        verdict_of("1", "Phi-2", "arc_easy", (0.8, 0.7, 0.9), {"arc_easy": 90}),
        verdict_of("7a", "Phi-2", "c4", (0.4, 0.3, 0.5), {"c4": 90}),
        verdict_of("7b", "Phi-2", "mmlu", (0.2, 0.1, 0.3), {"mmlu": 90}),
        verdict_of("13a", "Phi-2", "hellaswag", (0.2, 0.1, 0.3), {"hellaswag": 90}),
        verdict_of("13b"),  # not run
    ]
    rows = claims.in_words(here=verdicts).splitlines()[2:]
    assert rows[0].endswith("| **mixed**. Holds in one model, fails in another |")
    assert rows[1].endswith("| not measured |")
    assert "**mixed**. Holds: *Unhealed, simple pruning is far worse*" in rows[6]
    assert rows[12].endswith("| **holds** in part |")
    contradicting = verdict_of("1", "Phi-2", "mmlu", (0.4, 0.35, 0.45), {"mmlu": 90})
    assert "on one task, fails on another" in claims.in_words(here=[*verdicts, contradicting])


def test_each_model_that_was_asked_stories_is_judged_by_them():
    """Whichever table has them; no point of a line is there twice."""
    profile = profiles.get(profiles.DRAW_ONLY_PROFILE)
    measured = set()
    for _, table in tables.read_all(tables.folder(profile)):
        if "task" in table:
            measured |= set(table.model[table.task == "hellaswag"])
    run = claims.gather(profile)
    judged = checks.on_lines(run, "13a", *checks.LINES["13a"])
    assert {verdict.model for verdict in judged} == set(map(registry.label, measured)) and measured
    points = ["model", "task", "strategy", "treatment", "block_start", "block_size"]
    assert not run.tables["scores"].duplicated(points).any()


def test_quick_asks_enough_of_arc_easy_for_a_signal():
    """By so many of the recorded questions SmolLM2 stands out from its floor. It alone is read."""
    run = claims.gather(profiles.get(profiles.DRAW_ONLY_PROFILE, ["smollm2-135m"]))
    assert run.models("scores") == ["smollm2-135m"]
    whole = run.points("scores", task="arc_easy", block_size=0).iloc[0]
    answers = np.asarray(whole.examples)[: profiles.get("quick").arc_easy_questions]
    error = answers.std(ddof=1) / len(answers) ** 0.5
    assert (answers.mean() - whole.floor) / error >= SIGNAL
