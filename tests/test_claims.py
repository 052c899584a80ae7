"""Every claim can be met, missed and left open: synthetic runs of which the answer is known."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest

from lib.blocks import BlockDistances
from replication import paths, profiles
from replication import tables as stored
from replication.analysis import bootstrap, statistics
from replication.analysis.curves import curve, transitions
from replication.analysis.depth import lower_minus_upper
from replication.claims import bounds, checks, tables
from replication.claims.bounds import CRITERIA, judged
from replication.claims.show import markdown
from replication.claims.tables import RunTables
from replication.figures.verdicts import figure_claims
from replication.measure import experiments
from replication.profiles import PAPER_TOKENS
from scripts import readme

L, N, LN_V = 24, 400, 10.0
SIZES = range(1, 20)
MODEL = "qwen-7b"


# ---- synthetic runs ------------------------------------------------------------------------


def falls(at: float, top: float = 0.85, width: float = 0.05, floor: float = 0.25):
    """A score that falls from `top` to `floor` around the fraction `at`."""
    return lambda f: float(np.interp(f, [at - width / 2, at + width / 2], [top, floor]))


def grows(slope: float, jump: float = 0.0, at: float = 0.4):
    """A loss that grows from 3 nats linearly, with a jump."""
    return lambda f: 3 + slope * f + jump * (f >= at)


def rows(task, value, strategy="similarity", treatment="unhealed", n=N, model=MODEL, **columns):
    """The scores of one line, with a value for each question: its right answers are nested."""
    draw = np.random.default_rng(len(task))
    luck, records = draw.permutation(n) / n, []
    for size in (0, *SIZES):
        mean = value(size / L)
        nats = task in ("c4", "gsm8k_bpb")
        examples = mean + 0.3 * (luck - luck.mean()) if nats else (luck < mean).astype(float)
        records.append(
            {
                "model": model,
                "task": task,
                "strategy": strategy if size else "none",
                "treatment": treatment if size else "unpruned",
                "block_size": size,
                "fraction": size / L,
                "value": examples.mean(),
                "standard_error": examples.std(ddof=1) / np.sqrt(n),
                "n": n,
                "chance": {"c4": LN_V, "gsm8k": 0.0, "gsm8k_bpb": np.nan}.get(task, 0.25),
                "majority": np.nan,
                "examples": examples,
                "weights": np.ones(n),
            }
            | columns
        )
    return pd.DataFrame(records).assign(tokens=PAPER_TOKENS * (treatment == "healed"))


def joined(parts) -> pd.DataFrame:
    """Lines as one table; the unpruned scores of a model and task (and variant) once."""
    table = pd.concat(parts, ignore_index=True)
    point = ["model", "task", "strategy", "treatment", "block_size"]
    point += [c for c in ("ablation", "variant", "format") if c in table]
    return table.drop_duplicates(point)


SCORES = {  # as the paper has it: task, strategy, treatment
    ("mmlu", "similarity", "unhealed"): falls(0.40),
    ("mmlu", "similarity", "healed"): lambda f: falls(0.43)(f) + 0.03 * (0 < f < 0.35),
    ("mmlu", "simple", "healed"): falls(0.43),
    ("c4", "similarity", "unhealed"): grows(0.5, jump=8),
    ("c4", "similarity", "healed"): grows(1.0),
    ("c4", "simple", "unhealed"): grows(0.5, jump=10, at=0.02),
    ("c4", "simple", "healed"): lambda f: grows(1.2)(f) + 0.02 * (f > 0),
    ("hellaswag", "similarity", "unhealed"): lambda f: 0.8 - 0.6 * f - 0.05 * (f > 0),
    ("gsm8k", "similarity", "unhealed"): lambda f: 0.6 - 0.6 * f - 0.05 * (f > 0),
}
NUMBER = {k: falls(0.40, top=0.80 + 0.01 * k) for k in experiments.SHOTS}
ORDER = dict.fromkeys(experiments.ORDERS, falls(0.40))
SEEDS = {"mmlu": dict.fromkeys(experiments.SEEDS, falls(0.43)), "c4": {0: grows(1.0)}}
SEEDS["c4"] |= {1: grows(1.01), 2: grows(0.99)}
RANKS = {"mmlu": {2: falls(0.43, top=0.90), 64: falls(0.43)}}
RANKS["c4"] = {2: grows(1.4), 64: grows(1.0)}
STACKED = {"16 bits": grows(1.0), "nf4": lambda f: grows(1.05)(f) + 0.2}


def smooth(start, size):
    """Distances: the deeper the more similar, except the last layer."""
    return 0.1 + 0.02 * size - 0.008 * start + 0.3 * (start + size == L)


def with_island(start, size):
    """The same, and a few shallow blocks are as similar as deep ones."""
    planted = (start >= 4) & (start <= 6) & (size >= 2) & (size <= 5)
    return np.where(planted, smooth(L - 1 - size, size) + 0.003, smooth(start, size))


def upside_down(start, size):
    """The deeper the less similar, the last layer no exception; no islands."""
    return 0.1 + 0.02 * size + 0.004 * start - 0.3 * (start + size == L) * (size > 0)


@cache
def a_map(value, n=256, num_layers=L) -> BlockDistances:
    start, stop = np.mgrid[: num_layers + 1, : num_layers + 1]
    upper = np.triu(value(start, np.maximum(stop - start, 1)), 1)
    noise = np.random.default_rng(0).standard_normal((16, *upper.shape)) * 1e-4
    folds = np.array([upper + np.triu(part, 1) for part in noise])
    folds = folds + folds.transpose(0, 2, 1)
    return BlockDistances(folds.mean(0), folds.std(0) / 4, folds, n)


@cache
def damage(shallow=1.0, deep=0.2, n=N) -> pd.DataFrame:
    blocks = [(start, size) for size in range(1, L) for start in range(L - size + 1)]
    table = pd.DataFrame(blocks, columns=["block_start", "block_size"])
    rises = np.where(table.block_start + table.block_size <= L // 2, shallow, deep)
    texts = np.random.default_rng(0).normal(0, 0.3, n)
    examples, weights = [texts + rise for rise in rises], [np.ones(n)] * len(rises)
    return table.assign(model=MODEL, value=rises, examples=examples, weights=weights)


def cost(memory=0.55, prefill=0.6, decode=0.6, turns=9) -> pd.DataFrame:
    """Ratios at half the layers to the unpruned model."""
    points = []
    for task, ratio in {"weights": memory, "prefill": prefill, "decode": decode}.items():
        points += [(task, 0.0, 1.0), (task, 0.5, ratio)]
    table = pd.DataFrame(points, columns=["task", "fraction", "ratio"])
    ends = {"ratio_low": table.ratio - 0.02, "ratio_high": table.ratio + 0.02}
    return table.assign(model=MODEL, n=turns, quantization=None, value=table.ratio, **ends)


def variants(ablation, name, lines, n) -> list[pd.DataFrame]:
    """Healed scores of every variant of an ablation: lines[task][key] is a score by fraction."""
    parts = []
    for task, values in lines.items():
        for key, value in values.items():
            columns = {"ablation": ablation, "variant": name.format(key), "rank": key}
            parts.append(rows(task, value, treatment="healed", n=n, **columns))
    return parts


def a_run(
    scores=SCORES,
    number=NUMBER,
    order=ORDER,
    seeds=SEEDS,
    ranks=RANKS,
    stacked=STACKED,
    distances=with_island,
    damaged=(1.0, 0.2),
    costs=None,
    n=N,
    steps=5_000,
) -> RunTables:
    """A whole run of one model; by default one that agrees with the paper in everything."""
    lines = [
        rows(task, value, strategy, treatment, n)
        for (task, strategy, treatment), value in scores.items()
    ]
    number, order = {"mmlu": number}, {"mmlu": order}
    tables = {
        "scores": joined(lines),
        "prompts": joined(
            variants("number", "{} examples", number, n) + variants("order", "order {}", order, n)
        ),
        "seeds": joined(variants("seeds", "seed {}", seeds, n)),
        "ranks": joined(variants("similarity", "rank {}", ranks, n)),
        "stacked": joined([rows("c4", f, n=n, format=name) for name, f in stacked.items()]),
        "damage": damage(*damaged, n=n),
        "cost": cost(**(costs or {})),
    }
    maps = {MODEL: a_map(distances, 256 if n == N else n)}
    for table in tables.values():
        if "treatment" in table:
            table["tokens"] = np.where(table.treatment == "healed", steps * 16 * 2048, 0)
    return RunTables(maps, tables)


def robust(order) -> RunTables:
    """Models of 12, 24 and 36 layers, which fall where `order` says."""
    names = ("llama-2-7b", "llama-2-13b", "llama-2-70b")[: len(order)]
    tables = [rows("mmlu", falls(at), model=name) for name, at in zip(names, order, strict=True)]
    maps = {n: a_map(smooth, num_layers=12 * (i + 1)) for i, n in enumerate(names)}
    return RunTables(maps, {"scores": pd.concat(tables)})


def changed(task, strategy, treatment, value) -> dict:
    return {"scores": SCORES | {(task, strategy, treatment): value}}


AGREES = {part: {} for part in CRITERIA if part != "8"}
CONTRADICTS = {
    "1": changed("mmlu", "similarity", "unhealed", falls(0.10)),
    "2a": changed("mmlu", "similarity", "unhealed", falls(0.40, width=0.7)),
    "2b": changed("mmlu", "similarity", "unhealed", lambda f: falls(0.40)(f) + 0.3 * (f > 0.5)),
    "2c": changed("mmlu", "similarity", "healed", falls(0.45, width=0.7)),
    "2d": changed("mmlu", "similarity", "healed", falls(0.70)),
    "2e": changed("mmlu", "similarity", "healed", lambda f: falls(0.40)(f) - 0.05 * (f > 0)),
    "3a": changed("c4", "similarity", "unhealed", grows(0.5, jump=8, at=0.1)),
    "3b": changed("c4", "similarity", "healed", grows(0.5, jump=8)),
    "3c": changed("c4", "similarity", "healed", grows(8)),
    "4a": {"distances": upside_down},
    "4b": {"distances": upside_down},
    "5": {"distances": smooth},
    "6": {"damaged": (0.2, 1.0)},
    "7a": changed("c4", "simple", "unhealed", grows(0.6, jump=8)),
    "7b": changed("mmlu", "simple", "healed", falls(0.10)),
    "7c": changed("c4", "simple", "healed", lambda f: grows(1.05 - 0.2 * (0.2 < f < 0.3))(f)),
    "7d": changed("c4", "simple", "healed", grows(5)),
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
    "13a": changed("hellaswag", "similarity", "unhealed", falls(0.4)),
    "13b": changed("gsm8k", "similarity", "unhealed", falls(0.4, top=0.6, floor=0.0)),
}
HEALS = [part for part in AGREES if CRITERIA[part].heals]
COUNTED = ["12a"]  # bytes, not samples
SLOW = ["5"]  # it has no rule of its own for few texts


def claim_of(part: str) -> str:
    return part.rstrip("abcde")


def verdict(run: RunTables, part: str) -> bounds.Verdict:
    if part in checks.LINES:
        verdicts = checks.on_lines(run, part, *checks.LINES[part])
    else:
        verdicts = checks.FUNCTIONS[claim_of(part)](run)
    (one,) = [v for v in verdicts if v.claim == part]
    return one


@pytest.fixture(scope="module")
def agreeing() -> dict:
    return {v.claim: v for v in checks.verdicts(a_run())}


@pytest.fixture(scope="module")
def thin() -> RunTables:
    return a_run(n=12, costs={"turns": 3})


@pytest.fixture(scope="module")
def hardly_healed() -> RunTables:
    return a_run(steps=50)


# ---- verdicts ------------------------------------------------------------------------------


def test_every_part_of_every_claim_is_tried():
    assert set(CONTRADICTS) == set(AGREES)
    assert {claim_of(part) for part in CRITERIA} == {str(n) for n in range(1, 14)}


@pytest.mark.parametrize("part", AGREES)
def test_a_run_that_agrees_holds(agreeing, part):
    one = agreeing[part]
    assert (one.direction, one.confidence) == ("agrees", "decided"), one
    assert one.why == ""
    assert one.low - 1e-9 <= one.statistic <= one.high + 1e-9 and one.n


@pytest.mark.parametrize("part", CONTRADICTS)
def test_a_run_that_contradicts_does_not_hold(part):
    one = verdict(a_run(**CONTRADICTS[part]), part)
    assert (one.direction, one.confidence) == ("differs", "decided"), one


@pytest.mark.parametrize("part", [part for part in AGREES if part not in COUNTED + SLOW])
def test_too_few_examples_cannot_tell(thin, part):
    one = verdict(thin, part)
    assert (one.direction, one.confidence) == ("", "can't tell"), one
    assert "too few examples" in one.why or "no signal" in one.why


@pytest.mark.parametrize("part", [*HEALS, "1", "12a"])
def test_too_little_healing_points_but_does_not_decide(hardly_healed, part):
    one = verdict(hardly_healed, part)
    assert one.direction == "agrees"
    assert one.confidence == ("points this way" if part in HEALS else "decided"), one
    assert one.why.startswith("healed for 1.64 M tokens") == (part in HEALS)


def by_lines(part: str, *lines: pd.DataFrame, table: str = "scores") -> bounds.Verdict:
    """The verdict on a part where only `lines` were measured."""
    model = lines[0].model.iloc[0]
    maps = {model: a_map(smooth)}
    return verdict(RunTables(maps, {table: joined(lines)}), part)


def dips(f):
    return falls(0.40)(f) - 0.5 * (0.10 < f < 0.15)


@pytest.mark.parametrize(
    ("part", "line", "definition"),
    [
        (
            "2b",
            rows("mmlu", falls(0.40, floor=0.45), floor=0.45),
            "from chance, not from the floor",
        ),
        ("1", rows("mmlu", dips), "at the first crossing: 0.10"),
    ],
)
def test_a_verdict_that_turns_with_a_definition_is_not_decided(part, line, definition):
    one = by_lines(part, line)
    assert (one.direction, one.confidence) == ("agrees", "points this way")
    assert one.why.startswith(f"turns with the definition ({definition}")


@pytest.mark.parametrize("part", ["2c", "2d", "3c"])
def test_a_healing_that_changed_nothing_is_not_judged(part):
    lines = [rows("mmlu", falls(0.40)), rows("mmlu", falls(0.40), treatment="healed")]
    lines.append(rows("c4", grows(1.0), treatment="healed"))
    one = by_lines(part, *lines)
    assert (one.direction, one.confidence) == ("", "not testable here")
    assert one.why == "healing changed nothing for certain: accuracy by 0.000 [0.000, 0.000]"


@pytest.mark.parametrize(("model", "why"), [("smollm2-135m", "fewer bits"), (MODEL, "")])
def test_sixteen_bits_that_were_four_are_said_to_be_so(model, why):
    lines = [rows("c4", value, model=model, format=name) for name, value in STACKED.items()]
    one = by_lines("12d", *lines, table="stacked")
    assert one.direction == "agrees" and one.why.endswith(why)
    assert one.confidence == ("points this way" if why else "decided")


@pytest.mark.parametrize("layer", [1, 2])
def test_a_depth_that_rests_on_the_first_layers_is_not_decided(layer):
    """Only blocks with one shallow layer are unlike."""

    def unlike(start, size):
        return 0.1 + 0.02 * size + 0.3 * (start == layer) + 0.002 * start

    run = RunTables({MODEL: a_map(unlike)}, {})
    one = verdict(run, "4a")
    assert (one.direction, one.confidence) == ("agrees", "points this way")
    assert f"blocks without the first {'two' if layer == 1 else 'three'} layers" in one.why


def test_the_test_split_judges_where_all_lines_were_asked_it():
    """It has four times the questions of the validation split, which alone is asked healed."""
    lines = {
        (task.replace("mmlu", "arc_easy"), strategy, treatment): value
        for (task, strategy, treatment), value in SCORES.items()
    }
    run = a_run(lines | {("arc_easy_test", "similarity", "unhealed"): falls(0.10)})
    for part in ("1", "2a", "2b", "3a"):
        assert verdict(run, part).task == "arc_easy_test"
    assert verdict(run, "2d").task == "arc_easy"
    assert verdict(run, "1").direction == "differs"
    assert verdict(a_run(lines), "1").direction == "agrees"


def test_a_high_ratio_is_the_low_end_of_what_is_saved():
    one = verdict(RunTables({}, {"cost": cost(prefill=0.6)}), "12b")
    saved = [(1 - ratio) / 0.5 for ratio in (0.6, 0.62, 0.58)]
    assert (one.statistic, one.low, one.high) == pytest.approx(saved)


def test_one_rank_is_not_compared_with_itself():
    """A record that is not complete holds the recipe's own rank only."""
    only = {task: {2: values[2]} for task, values in RANKS.items()}
    assert not list(checks.ranks(a_run(ranks=only)))


def test_deeper_models_are_more_robust_or_not():
    assert verdict(robust((0.2, 0.4, 0.6)), "8").direction == "agrees"
    assert verdict(robust((0.6, 0.4, 0.2)), "8").direction == "differs"
    assert list(checks.robustness(a_run())) == []  # one model a family
    unlike = robust((0.2, 0.4))
    deep = unlike.tables["scores"].model == "llama-2-13b"
    unlike.tables["scores"].loc[deep, "task"] = "arc_easy"
    assert list(checks.robustness(unlike)) == []  # no question set that both answer


def test_a_model_of_three_layers_has_no_shallow_and_deep_blocks():
    rows = damage()
    few = rows[rows.block_start + rows.block_size <= 3]
    assert np.isnan(lower_minus_upper(few, 3)).all() and len(lower_minus_upper(few, 3)) == N


N_OF = {"questions": N}


@pytest.mark.parametrize(
    ("part", "interval", "direction", "position"),
    [
        ("1", (0.3, 0.1, 0.4), "", 0.5),
        ("1", (0.6, 0.5, 0.7), "", -0.5),
        ("1", (0.8, 0.7, np.inf), "differs", -2.5),
        ("6", (0.0, 0.0, 0.0), "differs", np.nan),
        ("8", (np.inf, 0.1, np.inf), "agrees", np.inf),  # there is no bound above
        ("2a", (np.inf, 0.3, np.inf), "differs", -np.inf),
        ("2a", (np.inf, 0.1, np.inf), "", 0),
        ("4b", (0.5, 0.4, 0.6), "", 0),
        ("1", (np.nan, np.nan, np.nan), "", np.nan),
    ],
)
def test_a_whole_interval_decides(part, interval, direction, position):
    one = judged(part, MODEL, "mmlu", interval, N_OF)
    assert one.direction == direction
    assert one.confidence == ("decided" if direction else "can't tell")
    assert one.position == pytest.approx(position, nan_ok=True)


def test_what_would_decide_is_said():
    why = judged("1", MODEL, "mmlu", (0.3, 0.1, 0.4), N_OF, hours=0.5).why
    assert "n = 1,600" in why and "2 hours" in why  # twice as near: four times
    assert "lies on the bound" in judged("4b", MODEL, "", (0.5, 0.4, 0.6), N_OF).why


@pytest.mark.parametrize(
    ("tokens", "confidence"),
    [(bounds.PAPER_TOKENS - 1, "points this way"), (bounds.PAPER_TOKENS, "decided")],
)
def test_a_verdict_on_healing_is_decided_with_the_tokens_of_the_paper(tokens, confidence):
    healed = judged("7b", MODEL, "mmlu", (0.2, 0.1, 0.3), N_OF, healed_tokens=tokens)
    assert (healed.direction, healed.confidence) == ("differs", confidence)
    unhealed = judged("1", MODEL, "mmlu", (0.3, 0.25, 0.35), N_OF, healed_tokens=tokens)
    assert (unhealed.direction, unhealed.confidence) == ("agrees", "decided")


def test_other_definitions_and_other_draws_may_turn_a_verdict():
    interval = (0.5, 0.4, 0.6)
    other = judged("6", MODEL, "c4", interval, N_OF, variants={"x": (-0.2, -0.3, -0.1)})
    assert (other.direction, other.confidence) == ("agrees", "points this way")
    assert "x: -0.20 [-0.30, -0.10]" in other.why
    undefined = judged("6", MODEL, "c4", interval, N_OF, variants={"x": (np.nan,) * 3})
    assert (undefined.confidence, undefined.why) == ("decided", "not defined: x")
    near = bootstrap.Interval(0.5, (0.01, 0.6), outer=(-0.01, 0.61))  # the bound is 0
    for value, variants in ((near, {}), (interval, {"x": near})):
        one = judged("6", MODEL, "c4", value, N_OF, variants=variants)
        assert (one.direction, one.confidence) == ("agrees", "points this way")
        assert one.why.startswith("may turn with other draws") and "[-0.01, 0.61]" in one.why


def test_each_variant_has_its_own_signal():
    """Without examples no signal, with five there is one: their order can be judged."""
    dull = {k: falls(0.40, top=0.27 if k == 0 else 0.85) for k in experiments.SHOTS}
    run = a_run(number=dull)
    assert verdict(run, "9a").direction == "agrees"
    assert "no signal" in verdict(run, "9c").why


def test_without_a_signal_no_transition_is_judged():
    guesses = {key: (lambda f: 0.25) for key in SCORES if key[0] == "mmlu"}
    run = a_run(scores=SCORES | guesses)
    on_questions = [verdict(run, part) for part in ("1", "2a", "2c", "3a", "3c", "7b")]
    assert {v.confidence for v in on_questions} <= {"not testable here", "can't tell"}
    assert all("no signal" in v.why for v in on_questions)


# ---- statistics ----------------------------------------------------------------------------


def test_a_transition_is_where_half_is_lost_if_it_is():
    falling = joined([rows("mmlu", falls(0.40)), rows("mmlu", falls(0.20), "simple")])
    table = transitions(falling.assign(model="m")).set_index("strategy")
    assert table.fraction["similarity"] == pytest.approx(0.40, abs=0.01)
    assert table.block_size["similarity"] == 10
    assert (table.low <= table.fraction).all() and (table.fraction <= table.high).all()
    assert table.high["simple"] < table.low["similarity"]
    level = transitions(rows("mmlu", lambda f: 0.8)).iloc[0]
    assert pd.isna(level.fraction) and pd.isna(level.block_size)
    assert level.low == max(SIZES) / L and level.high == np.inf


def test_saying_yes_is_no_signal():
    """BoolQ: above chance, below what the commonest answer scores."""
    table = rows("boolq", lambda f: 0.6, n=2_000).assign(chance=0.5, majority=0.62)
    row = transitions(table).iloc[0]
    assert row.gap < 0 and np.isnan(row.low)
    assert transitions(table.assign(majority=0.5)).iloc[0].gap > 4


def test_resampling_gives_the_standard_error_and_pairs():
    draw = np.random.default_rng(3)
    examples, weights = draw.normal(size=500), draw.uniform(1, 5, 500)
    means = bootstrap.resampled(np.stack([examples, examples + 0.5]), weights)
    assert means[0, 0] == pytest.approx(np.average(examples, weights=weights))
    error = bootstrap.weighted_mean(examples, weights)[1]
    assert means[1:, 0].std() == pytest.approx(error, rel=0.1)
    assert np.allclose(means[:, 1] - means[:, 0], 0.5)
    value, low, high = bootstrap.ci95(means[:, 0])
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_two_depths_are_too_few_for_a_statistic():
    table = rows("mmlu", falls(0.4))
    whole = curve(table.iloc[0], table.iloc[1:])
    three = curve(table.iloc[0], table.iloc[[4, 10, 16]])
    two = curve(table.iloc[0], table.iloc[[4, 10]])
    for of_a_place in (statistics.halfway, statistics.width):  # not between two depths far apart
        assert np.isnan(of_a_place(two)).all() and np.isfinite(of_a_place(three)).all()
    assert np.isnan(statistics.bend(two, two)[0])
    assert np.isnan(statistics.shift(whole, two)).all()
    none = np.zeros((1001, 0))  # no depth in common
    assert np.isnan(bootstrap.ci95_max(none, largest=True)).all()


# ---- what is shown ----------------------------------------------------------------


def test_figure_and_table_show_every_verdict(agreeing):
    verdicts = list(agreeing.values())
    table = figure_claims(verdicts).table
    assert table.claim.tolist() == list(CRITERIA)
    assert table.verdict.tolist() == [v.verdict for v in verdicts]
    lines = markdown(verdicts).splitlines()
    assert len(lines) == len(CRITERIA) + 2
    assert len({line.count("|") for line in lines}) == 1


def test_what_is_there_is_gathered_and_nothing_computed(output):
    smoke = profiles.get("smoke")
    empty = tables.gather(smoke)
    assert empty == RunTables({}, {}) and not paths.RESULTS.exists()
    assert {v.confidence for v in checks.verdicts(empty)} == {"not run"}
    distances = pd.DataFrame(stored.rows_of(a_map(smooth, num_layers=8)))
    stored.write(distances.assign(model="tiny-random"), "similarity", smoke)
    run = tables.gather(smoke)
    assert not paths.RESULTS.exists()
    assert {v.claim for v in checks.verdicts(run) if v.model} == {"4a", "4b"}


def test_reference_numbers_stand_beside_ours_only_for_the_same_model():
    own = robust((0.2, 0.4, 0.6))
    table = tables.beside(own).set_index(["model", "quantity"])
    fall = table.loc[[("Llama-2-13B", "transitions")]].iloc[0]
    assert fall.low <= fall.ours <= fall.high and fall.ours == pytest.approx(0.4, abs=0.05)
    assert (fall.least, fall.most) == (0.45, 0.55)
    starts = table.loc[[("Llama-2-7B", "best_starts")]]
    assert starts.ours.tolist() == [own.maps["llama-2-7b"].best_start(n) for n in range(1, 12)]
    other = replace(own, maps={"smollm2-135m": own.maps["llama-2-7b"]}, tables={})
    assert tables.beside(other).empty


# ---- the README ----------------------------------------------------------------------------


@pytest.mark.record
@pytest.mark.parametrize("name", readme.PARTS)
def test_readmes_show_the_recorded_run(name):
    """`python -m scripts.readme` brings them up to date."""
    text = (paths.ROOT / name).read_text(encoding="utf-8")
    assert readme.renewed(text, readme.PARTS[name]) == text
