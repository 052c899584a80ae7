"""Every claim can be met, missed and left open: synthetic runs of which the answer is known."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
from test_islands import a_map, smooth, with_island

from replication import profiles
from replication.analysis import bootstrap
from replication.analysis.islands import growth_only
from replication.claims import bounds, checks
from replication.claims.bounds import CRITERIA, verdict_of
from replication.claims.tables import RunTables

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
    luck = draw.permutation(n) / n
    records = []
    for size in (0, *SIZES):
        mean = value(size / L)
        if task in ("c4", "gsm8k_bpb"):  # nats
            examples = mean + 0.3 * (luck - luck.mean())
        else:
            examples = (luck < mean).astype(float)
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
    tokens = 5_000 * 16 * 2048 if treatment == "healed" else 0
    return pd.DataFrame(records).assign(tokens=tokens)


def joined(parts) -> pd.DataFrame:
    """Lines as one table; the unpruned scores of a model and task (and variant) once."""
    table = pd.concat(parts, ignore_index=True)
    point = ["model", "task", "strategy", "treatment", "block_size"]
    point += [c for c in ("ablation", "variant", "format") if c in table]
    return table.drop_duplicates(point)


SCORES = {  # as the paper has it: task, strategy, treatment
    ("mmlu", "similarity", "unhealed"): falls(0.40),
    ("mmlu", "similarity", "healed"): lambda f: falls(0.43)(f) + 0.03 * (0 < f < 0.35),
    ("mmlu", "simple", "healed"): falls(0.45),
    ("mmlu", "simple", "unhealed"): lambda f: falls(0.30)(f) + 0.1 * (f > 0),
    ("mmlu", "early exit", "unhealed"): falls(0.30),
    ("boolq_ranking", "similarity", "unhealed"): falls(0.40),
    ("boolq_ranking", "similarity", "healed"): falls(0.60),
    ("c4", "similarity", "unhealed"): grows(0.5, jump=8),
    ("c4", "similarity", "healed"): grows(1.0),
    ("c4", "simple", "unhealed"): grows(0.5, jump=10, at=0.02),
    ("c4", "simple", "healed"): lambda f: grows(1.2)(f) + 0.02 * (f > 0),
    ("hellaswag", "similarity", "unhealed"): lambda f: 0.8 - 0.6 * f - 0.05 * (f > 0),
    ("gsm8k", "similarity", "unhealed"): lambda f: 0.6 - 0.6 * f - 0.05 * (f > 0),
}
NUMBER = {k: falls(0.40, top=0.80 + 0.01 * k) for k in profiles.SHOTS}
ORDER = dict.fromkeys(profiles.ORDERS, falls(0.40))
SEEDS = {"mmlu": dict.fromkeys(profiles.SEEDS, falls(0.43)), "c4": {0: grows(1.0)}}
SEEDS["c4"] |= {1: grows(1.01), 2: grows(0.99)}
RANKS = {"mmlu": {2: falls(0.43, top=0.90), 64: falls(0.43)}}
RANKS["c4"] = {2: grows(1.4), 64: grows(1.0)}
STACKED = {"16 bits": grows(1.0), "nf4": lambda f: grows(1.05)(f) + 0.2}


def grown(start, size):
    """A stream that only grows has a shallow island, too: layer 8 turns it far."""
    turns = np.geomspace(0.06, 0.03, L)
    turns[8] = 0.3
    return growth_only(turns)[start, np.minimum(start + size, L)]


def jumping(start, size, at=10, to=2):
    """From `at` layers on the best start is layer `to`; smaller blocks have an island."""
    return np.where((start == to) & (size >= at), 0.05, with_island(start, size))


def upside_down(start, size):
    """The deeper the less similar, the last layer no exception; no islands."""
    return 0.1 + 0.02 * size + 0.004 * start - 0.3 * (start + size == L) * (size > 0)


noisy_map = cache(partial(a_map, noise=1e-4))


@cache
def damage(shallow=1.0, deep=0.2, last=0.5, few=0.1, n=N) -> pd.DataFrame:
    blocks = [(start, size) for size in range(1, L) for start in range(L - size + 1)]
    table = pd.DataFrame(blocks, columns=["block_start", "block_size"])
    stops = table.block_start + table.block_size
    rises = np.where(stops <= L // 2, shallow, deep)
    rises = rises + last * (stops == L) + few * (stops >= L - 1)
    texts = np.random.default_rng(0).normal(0, 0.3, n)
    table["model"] = MODEL
    table["value"] = rises
    table["loss"] = 3 + rises
    table["examples"] = [texts + rise for rise in rises]
    table["weights"] = [np.ones(n)] * len(rises)
    return table


def cost(memory=0.55, prefill=0.6, decode=0.6, turns=9, nf4=1.1) -> pd.DataFrame:
    """Ratios at half the layers to the unpruned model."""
    points = []
    for task, ratio in {"weights": memory, "prefill": prefill, "decode": decode}.items():
        points.append((task, 0.0, 1.0, None))
        points.append((task, 0.5, ratio, None))
        points.append((task, 0.0, nf4, "nf4"))
    table = pd.DataFrame(points, columns=["task", "fraction", "ratio", "quantization"])
    return table.assign(
        model=MODEL,
        n=turns,
        value=table.ratio,
        low=table.ratio - 0.02,
        high=table.ratio + 0.02,
        ratio_low=table.ratio - 0.02,
        ratio_high=table.ratio + 0.02,
    )


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
    distances=jumping,
    damaged=(),
    costs=None,
    n=N,
) -> RunTables:
    """A whole run of one model; by default one that agrees with the paper in everything."""
    lines = [
        rows(task, value, strategy, treatment, n)
        for (task, strategy, treatment), value in scores.items()
    ]
    numbers = variants("number", "{} examples", {"mmlu": number}, n)
    orders = variants("order", "order {}", {"mmlu": order}, n)
    formats = [rows("c4", value, n=n, format=name) for name, value in stacked.items()]
    tables = {
        "scores": joined(lines),
        "prompts": joined(numbers + orders),
        "seeds": joined(variants("seeds", "seed {}", seeds, n)),
        "ranks": joined(variants("similarity", "rank {}", ranks, n)),
        "stacked": joined(formats),
        "exits": joined(lines),
        "damage": damage(*damaged, n=n),
        "cost": cost(**(costs or {})),
    }
    of_texts = replace(noisy_map(distances), num_sequences=256 if n == N else n)
    return RunTables({MODEL: of_texts}, tables)


def robust(order) -> RunTables:
    """Models of 12, 24 and 36 layers, which fall where `order` says."""
    maps, tables = {}, []
    for i, name in enumerate(("llama-2-7b", "llama-2-13b", "llama-2-70b")):
        tables.append(rows("mmlu", falls(order[i]), model=name))
        maps[name] = a_map(smooth, num_layers=12 * (i + 1))
    return RunTables(maps, {"scores": pd.concat(tables)})


def changed(task, strategy, treatment, value) -> dict:
    return {"scores": SCORES | {(task, strategy, treatment): value}}


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
BY_DAMAGE = ["4d", "4e"]  # judged where claim 6 is
SLOW = ["5"]  # it has no rule of its own for few texts


def claim_of(part: str) -> str:
    return part.rstrip("abcdef")


def verdict(run: RunTables, part: str) -> bounds.Verdict:
    if part in checks.LINES:
        verdicts = checks.on_lines(run, part, *checks.LINES[part])
    else:
        claim = "6" if part in BY_DAMAGE else "9" if part in checks.ABLATIONS else claim_of(part)
        verdicts = checks.FUNCTIONS[claim](run)
    (one,) = [v for v in verdicts if v.claim == part]
    return one


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
