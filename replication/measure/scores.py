"""Scores of pruned models, healed or not, as tidy tables: request, fetch, table.

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

import pandas as pd

from lib import evaluation, healing, models
from lib.blocks import UNPRUNED
from replication import paths
from replication.measure import cache, fetching
from replication.measure.cache import ORIGIN, WEIGHTS
from replication.measure.fetching import Rows
from replication.measure.request import Request, load_task, weights_of
from replication.tables import BLOCK, grouped

DIGITS = 6  # decimals of the values of examples
NATS_DIGITS = 3  # decimals of the log-likelihoods of choices
ASKED = (*WEIGHTS, *BLOCK, "task", "shots", "seed", "rank", "steps", "tokens")
SCORE = ("value", "standard_error", "n", "chance", "majority", "floor")
SCORE += (*evaluation.ANSWER_STATS, "shortened", "prompt_digest")
EXAMPLES = ("examples", "weights", "choices", "answers")  # columns that no CSV has
NO_SCORE = dict.fromkeys(SCORE, float("nan")) | {"n": 0} | dict.fromkeys(EXAMPLES)
NO_ROWS = ["model", *BLOCK, "task", "strategy", "treatment", "steps", "tokens", *NO_SCORE, "status"]
TRAINING = ("model", *BLOCK, "status", "steps", "warmup_steps", "decay_steps", "tokens", "epochs")
TRAINING += ("losses", *ORIGIN)


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return a row a score; one that cannot be had has no value, and its status says why."""
    rows = map(row, requests, fetching.fetch(requests))
    return pd.DataFrame(rows, columns=None if requests else NO_ROWS)


def trainings(requests: Sequence[Request]) -> pd.DataFrame:
    """Return how each healing of some healed scores went, a row each; losses: nats, one a step."""
    by_healing = {str(one.healing.params): one for one in requests if one.recipe}
    healed = list(by_healing.values())
    results = fetching.fetch([one.healing for one in healed])
    rows = []
    for one, (result,) in zip(healed, results, strict=True):
        row = {name: one.labels[name] for name in ("profile", "strategy")}
        row |= {name: result.get(name) for name in TRAINING}
        row["losses"] = result.get("losses", [])
        rows.append(row)
    return pd.DataFrame(rows)


def row(scored: Request, rows: Rows) -> dict:
    """Return a row of the table: whose score, the score, and the labels of its experiment."""
    result = rows[0]
    measured = {name: result.get(name) for name in NO_SCORE}
    return (
        {"profile": scored.labels["profile"]}
        | {name: result[name] for name in ASKED}
        | NO_SCORE
        | {name: value for name, value in measured.items() if value is not None}
        | {name: result[name] for name in ORIGIN}
        | scored.labels
    )


# ---- measuring ------------------------------------------------------------------------------


def _heal_and_score(missing: Sequence[Request]) -> None:
    """Measure and store scores and healings; each model is loaded once for all that it needs.

    What does not fit into memory stays missing; the log says so.
    """
    import torch

    for version, of_version in grouped(missing, _version).items():
        for recipe, requests in grouped(of_version, lambda request: request.recipe).items():
            healed_by = requests[0].healing if recipe else None
            scored = [request for request in requests if request.kind == "scores"]
            if (healed_by and _heal(healed_by) != "ok") or not scored:
                continue
            with fetching.going_on_after(torch.OutOfMemoryError, scored[0]):
                model, tokenizer = models.load_cached(*version)
                with _healed(model, healed_by) if healed_by else nullcontext():
                    _score(model, tokenizer, scored)


fetching.MEASURE |= {"scores": _heal_and_score, "healing": _heal_and_score}


def _version(request: Request) -> tuple:
    """Arguments of `load_cached`; unhealed versions are cut in memory, from the same model."""
    return (*weights_of(request.params), request.block if request.recipe else UNPRUNED)


def _score(model, tokenizer, requests: list[Request]) -> None:
    """Sweep every task over the blocks that are requested of it, and store a result each."""
    from lib.sweep import sweep

    for same_task in grouped(requests, _all_but_block).values():
        # a healed model is loaded without its block (`_version`), so nothing more is cut here
        params_of = {
            UNPRUNED if request.recipe else request.block: request.params for request in same_task
        }
        params = same_task[0].params
        task = load_task(params)
        start = time.monotonic()
        cuts = [block for block in params_of if block != UNPRUNED]
        scores = sweep(model, tokenizer, cuts, [task], params["batch_tokens"])
        seconds = (time.monotonic() - start) / len(scores)
        for block, score in zip([UNPRUNED, *cuts], scores.to_dict("records"), strict=True):
            if block in params_of:
                row = row_of(model, tokenizer, task, score, params_of[block])
                cache.save("scores", params_of[block], [row], seconds)


def _all_but_block(request: Request) -> str:
    """The same for requests that differ in their block only."""
    others = {name: value for name, value in request.params.items() if name not in BLOCK}
    return cache.key(request.kind, others)


def row_of(model, tokenizer, task: evaluation.Task, score: dict, params: dict) -> dict:
    """Return the row of a result: one of `sweep`, and what answers score that read nothing."""
    from lib.sweep import baseline_scores

    vocabulary = model.config.get_text_config().vocab_size
    row = {name: score[name] for name in SCORE if name in score}
    row |= {"chance": task.chance(vocabulary), "majority": task.majority}
    row |= {"prompt_digest": prompt_digest(task)}
    row |= {"examples": score["examples"].round(DIGITS), "weights": score["weights"]}
    if score["choices"] is not None:
        row["choices"] = [choices.round(NATS_DIGITS) for choices in score["choices"]]
        row["answers"] = [example["answer"] for example in task.examples]
    if not params["block_size"]:
        baselines = baseline_scores(model, tokenizer, task, params["batch_tokens"])
        row["floor"] = max([row["chance"], *baselines.values()])
    return row


def _healed(model, request: Request):
    """Return the model with the adapter of a healing, within a `with`."""
    from lib.healing import lora

    return lora.load_lora(model, _adapter_folder(request) / "adapter")


def prompt_digest(task: evaluation.Task) -> str:
    """Return the first digits of a sha256 of what the first example asks: its prompt and choices.

    The key of a result does not know what a function makes of its arguments.
    """
    first = task.examples[0]
    question = [first.get(name) for name in ("prompt", "choices", "text")]
    content = cache.canonical(question).encode()
    return hashlib.sha256(content).hexdigest()[:12]


def _heal(request: Request) -> str:
    """Heal, unless it is done and the adapter is there; return the status of the healing.

    A healing that was restored has no adapter.
    """
    from lib.healing import lora

    folder = _adapter_folder(request)
    stored = cache.load("healing", request.params)
    if stored and (stored[0]["status"] != "ok" or lora.adapter_exists(folder / "adapter")):
        return stored[0]["status"]
    model, tokenizer = models.load_cached(*_version(request))
    healed = healing.heal(model, tokenizer, request.recipe, folder)
    row = {"tokens": healed.real_tokens, "epochs": healed.epochs, "losses": healed.losses}
    cache.save("healing", request.params, [row], healed.seconds, healed.status)
    return healed.status


def _adapter_folder(request: Request):
    return paths.RESULTS / "adapters" / cache.key("healing", request.params)[:20]
