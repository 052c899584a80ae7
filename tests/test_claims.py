"""Every claim can be met, missed and left open: synthetic runs of which the answer is known."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from synthetic_maps import with_island
from synthetic_runs import (
    MODEL,
    NUMBER,
    ORDER,
    RANKS,
    SCORES,
    SEEDS,
    STACKED,
    N,
    a_run,
    changed,
    falls,
    grown,
    grows,
    joined,
    jumping,
    robust,
    rows,
    upside_down,
    variants,
    verdict,
)

from replication.analysis import bootstrap
from replication.claims import bounds, checks
from replication.claims.bounds import CRITERIA, verdict_of
from replication.claims.tables import RunTables

AGREES = {part: {} for part in CRITERIA if part != "8"}
CONTRADICTS = {
    "1": changed("mmlu", "similarity", "unhealed", falls(0.10)),
    "1b": {"distances": partial(jumping, at=18)},
    "2a": changed("mmlu", "similarity", "unhealed", falls(0.40, width=0.7)),
    "2b": changed("mmlu", "similarity", "unhealed", lambda f: falls(0.40)(f) + 0.3 * (f > 0.5)),
    "2c": changed("mmlu", "similarity", "healed", falls(0.45, width=0.7)),
    "2d": changed("mmlu", "similarity", "healed", falls(0.70)),
    "2e": changed("mmlu", "similarity", "healed", lambda f: falls(0.40)(f) - 0.05 * (f > 0)),
    "2f": changed("boolq_ranking", "similarity", "healed", falls(0.40)),
    "3a": changed("c4", "similarity", "unhealed", grows(0.5, jump=8, at=0.1)),
    "3b": changed("c4", "similarity", "healed", grows(0.3, jump=8)),
    "3c": changed("c4", "similarity", "healed", grows(8)),
    "4a": {"distances": upside_down},
    "4b": {"distances": upside_down},
    "4c": changed("mmlu", "early exit", "unhealed", falls(0.45)),
    "4d": {"damaged": (1.0, 0.2, -0.5)},
    "4e": {"damaged": (1.0, 0.2, 0.5, -0.1)},
    "5": {"distances": grown},
    "6": {"damaged": (0.2, 1.0)},
    "7a": changed("c4", "simple", "unhealed", grows(0.6, jump=8)),
    "7b": changed("mmlu", "simple", "healed", falls(0.10)),
    "7c": changed("c4", "simple", "healed", lambda f: grows(1.05 - 0.2 * (0.2 < f < 0.3))(f)),
    "7d": changed("c4", "simple", "healed", grows(5)),
    "7e": changed("mmlu", "simple", "healed", falls(0.35)),
    "9a": {"order": ORDER | {2: falls(0.40, top=0.60)}},
    "9b": {"number": NUMBER | {max(NUMBER): falls(0.7)}},
    "9c": {"number": NUMBER | {max(NUMBER): falls(0.40, top=0.70)}},
    "10a": {"seeds": SEEDS | {"mmlu": SEEDS["mmlu"] | {2: falls(0.20)}}},
    "10b": {"seeds": SEEDS | {"c4": SEEDS["c4"] | {2: grows(2)}}},
    "11a": {"ranks": RANKS | {"mmlu": {2: falls(0.43), 64: falls(0.43, top=0.9)}}},
    "11b": {"ranks": RANKS | {"c4": {2: grows(1), 64: grows(1.4)}}},
    "12a": {"costs": {"memory": 0.9}},
    "12b": {"costs": {"prefill": 0.95}},
    "12c": {"costs": {"decode": 0.95}},
    "12d": {"stacked": STACKED | {"nf4": grows(3.0)}},
    "12e": {"costs": {"nf4": 1.5}},
    "12f": {"costs": {"nf4": 0.7}},
    "13a": changed("hellaswag", "similarity", "unhealed", falls(0.4)),
    "13b": changed("gsm8k", "similarity", "unhealed", falls(0.4, top=0.6, floor=0.0)),
}
COUNTED = ["12a"]  # bytes, not samples
SLOW = ["5"]  # it has no rule of its own for few texts


@pytest.fixture(scope="module")
def agreeing() -> dict:
    return {v.claim: v for v in checks.verdicts(a_run())}


@pytest.fixture(scope="module")
def thin() -> RunTables:
    return a_run(n=12, costs={"turns": 3})


# ---- verdicts ------------------------------------------------------------------------------


@pytest.mark.parametrize("part", AGREES)
def test_a_run_that_agrees_holds(agreeing, part):
    one = agreeing[part]
    assert (one.direction, one.confidence) == ("agrees", "decided"), one
    assert one.why == ""
    assert one.low - 1e-9 <= one.statistic <= one.high + 1e-9 and one.n


@pytest.mark.parametrize("name", ["damage", "cost", "exits"])
def test_a_run_of_few_notebooks_is_judged_by_what_it_has(name):
    """`make figures ONLY="12 15"` has no scores."""
    run = a_run(n=12)
    alone = replace(run, tables={name: run.tables[name]})
    assert {v.claim for v in checks.verdicts(alone) if v.n} <= {*CRITERIA}


@pytest.mark.parametrize("part", CONTRADICTS)
def test_a_run_that_contradicts_does_not_hold(part):
    one = verdict(a_run(**CONTRADICTS[part]), part)
    assert (one.direction, one.confidence) == ("differs", "decided"), one


@pytest.mark.parametrize("part", [part for part in AGREES if part not in COUNTED + SLOW])
def test_too_few_examples_cannot_tell(thin, part):
    one = verdict(thin, part)
    assert (one.direction, one.confidence) == ("", "can't tell"), one


OWN_CHANGE = {"2e", "2f"}  # the statistic is what healing changes
OF_PROMPTS = {"9a", "9b", "9c"}  # of healed models, not of their healing
ON_CHANGES = {part for part, of in CRITERIA.items() if of.heals} - OWN_CHANGE - OF_PROMPTS


@pytest.fixture(scope="module")
def unchanged() -> RunTables:
    """A run in which each healed score is the unhealed one, of every seed and rank."""
    same = {key: SCORES[*key[:2], "unhealed"] for key in SCORES if key[2] == "healed"}
    lines = {task: SCORES[task, "similarity", "unhealed"] for task in ("mmlu", "c4")}
    of_variants = {task: dict.fromkeys((0, 1), line) for task, line in lines.items()}
    run = a_run(scores=SCORES | same, seeds=of_variants, ranks=of_variants)
    for name, ablation in {"seeds": "seeds", "ranks": "similarity"}.items():
        labels = {"ablation": ablation, "variant": "unhealed"}
        cuts = [rows(task, line, **labels).iloc[1:] for task, line in lines.items()]
        run.tables[name] = pd.concat([run.tables[name], *cuts], ignore_index=True)
    return run


@pytest.mark.parametrize("part", sorted(ON_CHANGES))
def test_a_healing_that_changed_nothing_is_not_judged(unchanged, part):
    one = verdict(unchanged, part)
    assert (one.direction, one.confidence) == ("", "not testable here"), one
    assert one.why.startswith("healing changed nothing for certain")


@pytest.mark.parametrize("starts", [with_island, partial(jumping, to=8)])
def test_where_the_best_start_never_jumps_no_transition_is_judged_by_it(starts):
    """Nor where it falls among the deeper layers."""
    one = verdict(a_run(distances=starts), "1b")
    assert (one.confidence, one.why) == ("not testable here", "the best start never jumps")


def test_shorter_healings_and_ranks_after_simple_pruning_are_judged_beside_the_first():
    """By the same bound; each is named by what it has otherwise."""
    run, other = a_run(), SEEDS | CONTRADICTS["10b"]["seeds"]
    run.tables["more_seeds"] = joined(variants("more seeds", "seed {}", other, N)).assign(steps=64)
    swapped = {task: {2: lines[64], 64: lines[2]} for task, lines in RANKS.items()}
    simple = [table.assign(steps=64) for table in variants("simple", "rank {}", swapped, N)]
    similar = variants("similarity", "rank {}", RANKS, N)
    run.tables["ranks"] = joined([*similar, *simple])
    run.tables["more_ranks"] = joined([table.assign(steps=64) for table in similar] + simple)
    every = {(v.claim, v.task): v.direction for v in checks.ablations(run)}
    for claim, task in (("11a", "mmlu"), ("11b", "c4")):
        assert every[claim, task] == every[claim, f"{task}, 64 steps"] == "agrees"
        assert every[claim, f"{task}, simple"] == "differs"
        assert every[claim, f"{task}, simple, 64 steps"] == "differs"
    assert every["10b", "c4"] == "agrees"
    assert every["10b", "c4, 64 steps"] == "differs"


def test_deeper_models_are_more_robust_or_not():
    assert verdict(robust((0.2, 0.4, 0.6)), "8").direction == "agrees"
    assert verdict(robust((0.6, 0.4, 0.2)), "8").direction == "differs"


N_OF = {"questions": N}


@pytest.mark.parametrize(
    ("part", "interval", "direction"),
    [
        ("1", (0.3, 0.1, 0.4), ""),
        ("1", (0.8, 0.7, np.inf), "differs"),
        ("8", (np.inf, 0.1, np.inf), "agrees"),  # there is no bound above
        ("2a", (np.inf, 0.1, np.inf), ""),
        ("1", (np.nan, np.nan, np.nan), ""),
        ("9b", (-0.07, -0.08, -0.06), "agrees"),  # where healing may not move it
        ("2d", (-0.07, -0.08, -0.06), "differs"),
        ("7e", (-0.24, -np.inf, -0.19), "differs"),
        ("7e", (-0.24, -np.inf, 0.1), ""),
    ],
)
def test_a_whole_interval_decides(part, interval, direction):
    one = verdict_of(part, MODEL, "mmlu", interval, N_OF)
    assert one.direction == direction
    assert one.confidence == ("decided" if direction else "can't tell")


@pytest.mark.parametrize("fewer, confidence", [(1, "points this way"), (0, "decided")])
def test_a_verdict_on_healing_is_decided_with_the_tokens_of_the_paper(fewer, confidence):
    run = a_run(**CONTRADICTS["7b"])
    scores = run.tables["scores"]
    run.tables["scores"] = scores.assign(tokens=(scores.tokens - fewer).clip(lower=0))
    healed = verdict(run, "7b")
    assert (healed.direction, healed.confidence) == ("differs", confidence)
    assert verdict(run, "1").confidence == "decided"


def test_an_infinite_end_of_an_interval_keeps_its_sign():
    assert bounds.numbers((-0.24, -np.inf, -0.19)) == "-0.24 [-∞, -0.19]"
    assert bounds.numbers((np.inf, 0.21, np.inf)) == "∞ [0.21, ∞]"


def test_other_definitions_and_other_draws_may_turn_a_verdict():
    interval = (0.5, 0.4, 0.6)
    for turned, way in {
        (-0.2, -0.3, 0.1): ("agrees", "points this way"),
        (-0.2, -0.3, -0.1): ("", "depends on the definition"),  # it decides the other way
    }.items():
        other = verdict_of("6", MODEL, "c4", interval, N_OF, variants={"x": turned})
        assert (other.direction, other.confidence) == way
    near = bootstrap.Interval(0.5, (0.01, 0.6), outer=(-0.01, 0.61))  # the bound is 0
    drawn = verdict_of("6", MODEL, "c4", near, N_OF)
    assert (drawn.direction, drawn.confidence) == ("agrees", "points this way")


def test_tables_of_a_run_with_limit_do_not_stand_beside_full_ones():
    healed = rows("mmlu", falls(0.4), treatment="healed", n=20).iloc[1:]
    run = RunTables({}, {"scores": pd.concat([rows("mmlu", falls(0.4)), healed])})
    with pytest.raises(ValueError, match=f"'unhealed' has {N} examples, 'healed' 20: .* LIMIT"):
        checks.verdicts(run)


def test_without_a_signal_no_transition_is_judged():
    guesses = {key: (lambda f: 0.25) for key in SCORES if key[0] == "mmlu"}
    run = a_run(scores=SCORES | guesses)
    for part in ("1", "2a", "2c", "3a", "3c", "7b"):
        one = verdict(run, part)
        assert one.confidence in ("not testable here", "can't tell")
        assert "no signal" in one.why
