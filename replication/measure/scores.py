"""Scores of pruned models, healed or not, as tidy tables: request, fetch, table.

Every function takes the maps of some models and a profile, and returns one table over all of them.
A stored result is read; a missing one is measured and stored, one result per block and task.
Columns: profile, model, revision, dtype, quantization, block_start, block_size, task, shots, seed,
rank, steps and tokens of healing (0: not healed; tokens: at most), value, standard_error, n,
chance, majority, floor, …, status, and the labels of the experiment (fraction of the layers
dropped, strategy, treatment; of the ablations also ablation and variant).
What only reads results loads no torch: functions that measure import what they need.
"""

import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict

import pandas as pd

from lib import evaluation, healing, models
from lib.blocks import UNPRUNED, Block
from lib.healing import Recipe
from replication import paths
from replication.measure import cache, codec, fetching, request
from replication.measure.request import BLOCK, Request, grouped
from replication.profiles import Profile

SCORE = ("value", "standard_error", "n", "chance", "majority", "floor")
SCORE += (*evaluation.ANSWER_STATS, "shortened", "prompt_digest")
EXAMPLES = ("examples", "weights", "choices", "answers")  # columns that no CSV has
NO_SCORE = dict.fromkeys(SCORE, float("nan")) | {"n": 0} | dict.fromkeys(EXAMPLES)
NO_ROWS = ["model", *BLOCK, "task", "strategy", "treatment", "steps", "tokens", *NO_SCORE, "status"]


def fetch(requests: Sequence[Request]) -> list[dict]:
    """Return the records of scores and healings, measured if they are missing."""
    return fetching.fetch(requests, _measure)


def measure(
    name: str,
    profile: Profile,
    blocks: Sequence[Block],
    tasks: Sequence[str],
    recipe: Recipe | None = None,
) -> pd.DataFrame:
    """Return scores of model `name` without each block, by task, then block; healed by `recipe`.

    Unhealed ones begin with the unpruned model.
    """
    blocks = dict.fromkeys(blocks if recipe else [UNPRUNED, *blocks])
    pairs = [(task, block) for task in tasks for block in blocks]
    return table([request.score(name, profile, *pair, recipe) for pair in pairs])


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return a row a score; one that cannot be had has no value, and its status says why."""
    rows = map(row, requests, fetch(requests))
    return pd.DataFrame(rows, columns=None if requests else NO_ROWS)


def trainings(requests: Sequence[Request]) -> pd.DataFrame:
    """Return how each healing of some healed scores went, a row each; losses: nats, one a step."""
    by_healing = {str(r.healing.params): r for r in requests if r.recipe}
    records = fetch([r.healing for r in by_healing.values()])
    rows = []
    for r, record in zip(by_healing.values(), records, strict=True):
        values = record["values"] or {"losses": []}
        rows.append(
            {
                "profile": r.labels["profile"],
                "model": r.params["model"],
                "strategy": r.labels["strategy"],
                "block_start": r.block.start,
                "block_size": r.block.size,
                "status": record["status"],
                "steps": r.recipe.steps,
                "warmup_steps": r.recipe.warmup_steps,
                "decay_steps": r.recipe.decay_steps,
                "tokens": values.get("real_tokens"),
                "epochs": values.get("epochs"),
                "losses": values["losses"],
                **fetching.origin(record),
            }
        )
    return pd.DataFrame(rows)


def row(scored: Request, record: dict) -> dict:
    """A row of the table: whose score, the score, and the labels of its experiment."""
    params, values, labels = record["params"], record["values"], dict(scored.labels)
    recipe = params.get("recipe", {})
    steps = recipe.get("steps", 0)
    score = NO_SCORE
    if values:  # also of a score that was stored with less
        score = score | {key: values[key] for key in SCORE if values.get(key) is not None}
        score |= dict(zip(EXAMPLES, codec.examples_of(values), strict=True))
    return {
        "profile": labels.pop("profile"),
        "model": params["model"],
        "revision": params.get("revision"),
        **{key: params[key] for key in ("dtype", "quantization", *BLOCK, "task")},
        "shots": params.get("shots"),
        "seed": recipe.get("seed"),
        "rank": recipe.get("rank"),
        "steps": steps,
        "tokens": steps * recipe.get("batch", 0) * recipe.get("max_tokens", 0),
        **score,
        **fetching.origin(record),
        **labels,
    }


# ---- measuring ------------------------------------------------------------------------------


def _measure(missing: Sequence[Request]) -> None:
    """Measure and store scores and healings; each model is loaded once for all that it needs.

    What does not fit into memory stays missing; the log says so.
    """
    import torch

    for version, of_version in grouped(missing, _version).items():
        for recipe, requests in grouped(of_version, lambda r: r.recipe).items():
            healed = _heal(requests[0].healing) if recipe else None
            scored = [r for r in requests if r.kind == "scores"]
            if not scored or (healed and healed["status"] != "ok"):
                continue
            with fetching.going_on_after(torch.OutOfMemoryError, scored[0]):
                model, tokenizer = models.load_cached(*version)
                with _healed(model, healed) if healed else nullcontext():
                    _score(model, tokenizer, scored)


def _version(r: Request) -> tuple:
    """Arguments of `load_cached`; unhealed versions are cut in memory, from the same model."""
    weights = (r.params[key] for key in ("model", "quantization", "dtype"))
    return (*weights, r.block if r.recipe else UNPRUNED)


def _score(model, tokenizer, requests: list[Request]) -> None:
    """Sweep every task over the blocks that are requested of it, and store a result each."""
    from lib.sweep import sweep

    for of_task in grouped(requests, _all_but_block).values():
        params_of = {UNPRUNED if r.recipe else r.block: r.params for r in of_task}
        params = of_task[0].params
        task = evaluation.task_of(params)
        start = time.monotonic()
        cuts = [block for block in params_of if block != UNPRUNED]
        scores = sweep(model, tokenizer, cuts, [task], params["batch_tokens"])
        seconds = (time.monotonic() - start) / len(scores)
        for block, score in zip([UNPRUNED, *cuts], scores.to_dict("records"), strict=True):
            if block in params_of:
                values = values_of(model, tokenizer, task, score, params_of[block])
                cache.save("scores", params_of[block], values, seconds)


def _all_but_block(r: Request) -> str:
    """The same for requests that differ in their block only."""
    return cache.key(r.kind, {k: v for k, v in r.params.items() if k not in BLOCK})


def values_of(model, tokenizer, task: evaluation.Task, score: dict, params: dict) -> dict:
    """The values of a result: a row of `sweep`, and what answers score that read nothing."""
    from lib.sweep import baseline_scores

    values = {key: score[key] for key in SCORE if key in score}
    answers = [example.get("answer") for example in task.examples]
    values |= codec.packed(score["examples"], score["weights"], score["choices"], answers)
    vocabulary = model.config.get_text_config().vocab_size
    values |= {"chance": task.chance(vocabulary), "majority": task.majority}
    values |= {"prompt_digest": prompt_digest(task)}
    if not params["block_size"]:
        baselines = baseline_scores(model, tokenizer, task, params["batch_tokens"])
        floor = max([values["chance"], *baselines.values()])
        values |= {"without_reading": baselines, "floor": floor}
    return values


def prompt_digest(task: evaluation.Task) -> str:
    """Return the first digits of a sha256 of what the first example asks: its prompt and choices.

    The key of a result does not know what a function makes of its arguments.
    """
    asked = [task.examples[0].get(name) for name in ("prompt", "choices", "text")]
    return hashlib.sha256(cache.canonical(asked).encode()).hexdigest()[:12]


def _healed(model, record: dict):
    """The model with the adapter of a healing's record."""
    from lib.healing import lora

    folder = paths.RESULTS / "adapters" / record["values"]["adapter"]
    return lora.load_lora(model, folder / "adapter")


def _heal(r: Request) -> dict:
    """The record of a healing, stored, or made now: from the newest shorter one, if one is left."""
    from lib.healing import lora

    folder = _adapter_folder(r)
    stored = cache.load("healing", r.params)
    is_done = stored and stored["status"] == "ok"
    if is_done and not lora.adapter_exists(folder / "adapter"):  # gone, or never restored
        cache.location("healing", r.params).unlink(missing_ok=True)

    def compute() -> dict:
        shorter = map(_adapter_folder, r.shorter)
        start = next((made for made in shorter if made.exists()), None)
        model, tokenizer = models.load_cached(*_version(r))
        healed = asdict(healing.heal(model, tokenizer, r.recipe, folder, warm_start=start))
        return healed | {"adapter": None if healed["adapter"] is None else folder.name}

    return cache.load_or_compute("healing", r.params, compute)


def _adapter_folder(r: Request):
    return paths.RESULTS / "adapters" / cache.key("healing", r.params)[:20]
