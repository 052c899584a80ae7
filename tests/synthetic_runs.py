"""Whole runs of a model of 24 layers that are made up, and what a claim makes of them."""

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pandas as pd
from synthetic_maps import L, a_map, smooth, with_island

from replication import profiles
from replication.analysis.islands import growth_only
from replication.claims import bounds, checks
from replication.claims.tables import RunTables

N, LN_V = 400, 10.0
SIZES = range(1, 20)
MODEL = "qwen-7b"


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


BY_DAMAGE = ["4d", "4e"]  # judged where claim 6 is


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
