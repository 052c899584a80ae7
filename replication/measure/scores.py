"""Scores of pruned models, healed or not, as tidy tables: ask, fetch, table.

Every function takes the maps of some models and a profile, and returns one table over all of them.
What the results hold is read; what is missing is measured and stored, one result per block and
task. Columns: profile, model, dtype, quantization, block_start, block_size, task, shots, seed,
rank, value, standard_error, n, chance, majority, floor, …, status, and what the experiment shows
(fraction of the layers dropped, strategy, treatment; of the ablations also ablation and variant).
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict

import pandas as pd

from lib import evaluation
from lib.blocks import UNPRUNED, Block, BlockDistances
from lib.healing import lora as adapters
from lib.healing import training as healing
from lib.healing.recipe import Recipe
from lib.models import loading
from lib.sweep import sweep, without_reading
from replication import paths, results
from replication.measure import experiments, fetching, packing
from replication.measure import wanted as asking
from replication.measure.experiments import TASKS
from replication.measure.wanted import Wanted, grouped
from replication.profiles import Profile

Maps = dict[str, BlockDistances]
SCORE = ("value", "standard_error", "n", "chance", "majority", "floor")
SCORE += (*evaluation.TOLD, "shortened")
EXAMPLES = ("examples", "weights", "choices", "answers")  # columns that no CSV has
NO_SCORE = dict.fromkeys(SCORE, float("nan")) | {"n": 0} | dict.fromkeys(EXAMPLES)
NO_ROWS = ["model", *asking.BLOCK, "task", "strategy", "treatment", "steps", "tokens", *NO_SCORE]
UNSOLVED = "no answer: the unpruned model solves none"


def unhealed(maps: Maps, profile: Profile, tasks: Sequence[str] = TASKS) -> pd.DataFrame:
    """The pruning curves of both strategies, and the unpruned model (strategy "none")."""
    return of_all(maps, experiments.unhealed, profile, tasks)


def healed(maps: Maps, profile: Profile, *how, **changes) -> pd.DataFrame:
    """Scores after healing. how: tasks, strategies and sizes, as of `experiments.healed`; by
    default all, and the profile's. changes: of the recipe, as rank=2.

    A healing that diverged or ran out of memory has no score: its rows say so in `status`.
    """
    return of_all(maps, experiments.healed, profile, *how, **changes)


def reasoning(maps: Maps, profile: Profile) -> pd.DataFrame:
    """HellaSwag and GSM8K, the question sets of the paper's second version, unhealed.

    hellaswag and gsm8k_bpb (bits per byte of the gold solution) at every block size; gsm8k (exact
    match of what the model writes) where the profile heals, too. Where the unpruned model solves no
    problem, no pruned one is asked; these rows have no value, only a status.
    """
    rows = []
    for model in maps.items():
        asked, written = (f(*model, profile) for f in (experiments.reasoning, experiments.written))
        records = fetch(asked)
        whole = records[-1]  # what the unpruned model writes
        if whole["values"] and whole["values"]["value"] == 0:
            blocks = ({key: w.params[key] for key in asking.BLOCK} for w in written)
            gone = {"values": None, "status": UNSOLVED}
            records += [gone | {"params": whole["params"] | block} for block in blocks]
        else:
            records += fetch(written)
        rows += map(row, asked + written, records)
    return pd.DataFrame(rows)


def healings(maps: Maps, profile: Profile) -> pd.DataFrame:
    """How each healing of notebook 03 went, one row each; losses: nats, one a step."""
    asked = [w for m in maps.items() for w in experiments.healed(*m, profile, ["c4"])]
    asked += [w for m in maps.items() for w in experiments.dose(*m, profile) if w.recipe]
    wanted, rows = list({str(w.healing.params): w for w in asked}.values()), []
    for w, record in zip(wanted, fetch([w.healing for w in wanted]), strict=True):
        values = record["values"] or {"losses": []}
        row = {"profile": profile.name, "model": w.params["model"], "strategy": w.shown["strategy"]}
        row |= {key: w.params[key] for key in asking.BLOCK} | {"status": record["status"]}
        row |= {key: getattr(w.recipe, key) for key in ("steps", "warmup_steps", "decay_steps")}
        row |= {"tokens": values.get("real_tokens"), "epochs": values.get("epochs")}
        rows.append(row | {"took": record.get("seconds"), "losses": values["losses"]})
    return pd.DataFrame(rows)


def measure(
    name: str,
    profile: Profile,
    blocks: Sequence[Block],
    tasks: Sequence[str],
    recipe: Recipe | None = None,
) -> pd.DataFrame:
    """Scores of model `name` without each block, by task, then block; healed if there is a recipe.

    Unhealed ones begin with the unpruned model.
    """
    blocks = dict.fromkeys(blocks if recipe else [UNPRUNED, *blocks])
    return table([asking.score(name, profile, task, b, recipe) for task in tasks for b in blocks])


def heal(name: str, profile: Profile, block: Block, recipe: Recipe) -> dict:
    """The stored record of a healing, made first if it is missing or its adapter is gone."""
    (wanted,) = fetching.here([asking.healing(name, profile, block, recipe)])
    return _heal(wanted)


# ---- ask, fetch, table ----------------------------------------------------------------------


def of_all(maps: Maps, asked: Callable[..., list[Wanted]], *how, **changes) -> pd.DataFrame:
    """What one of measure.experiments wants of every model, as one table: of its prompts, say."""
    return table([w for model in maps.items() for w in asked(*model, *how, **changes)])


def fetch(wanted: Sequence[Wanted]) -> list[dict]:
    """The records of scores and healings, measured if they are missing."""
    return fetching.fetched(wanted, _measure)


def table(wanted: Sequence[Wanted]) -> pd.DataFrame:
    """Scores as the rows of a figure's CSV; one that cannot be had is drawn as missing."""
    return pd.DataFrame(map(row, wanted, fetch(wanted)), columns=None if wanted else NO_ROWS)


def row(wanted: Wanted, record: dict) -> dict:
    params, values, shown = record["params"], record["values"], dict(wanted.shown)
    told = ("model", "dtype", "quantization", *asking.BLOCK, "task")
    recipe = params.get("recipe", {})
    score = NO_SCORE
    if values:  # also of a score that was stored with less
        score = score | {key: values[key] for key in SCORE if values.get(key) is not None}
        score |= dict(zip(EXAMPLES, packing.examples_of(values), strict=True))
    return (
        {"profile": shown.pop("profile")}
        | {key: params[key] for key in told}
        | {"shots": params.get("shots"), "seed": recipe.get("seed"), "rank": recipe.get("rank")}
        | score
        | {"status": record["status"], "took": record.get("seconds")}
        | shown
    )


# ---- measuring ------------------------------------------------------------------------------


def _measure(missing: Sequence[Wanted]) -> None:
    """Measure and store scores and healings; each model is loaded once for all that it needs."""
    for version, of_version in grouped(missing, _version).items():
        for recipe, found in grouped(of_version, lambda w: w.recipe).items():
            healed = _heal(found[0].healing) if recipe else {"status": "ok"}
            scores = [w for w in found if w.kind == "scores"]
            if scores and healed["status"] == "ok":
                model, tokenizer = loading.loaded(*version)
                made = paths.RESULTS / "adapters" / healed["values"]["adapter"] if recipe else None
                with adapters.attached(model, made / "adapter") if made else nullcontext():
                    _score(model, tokenizer, scores)


def _version(wanted: Wanted) -> tuple:
    """Arguments of `loading.loaded`; unhealed versions are cut in memory, from the same model."""
    weights = (wanted.params[key] for key in ("model", "quantization", "dtype"))
    return (*weights, wanted.block if wanted.recipe else UNPRUNED)


def _score(model, tokenizer, wanted: list[Wanted]) -> None:
    """Sweep every task over the blocks that are wanted of it, and store a result each."""
    for of_task in grouped(wanted, _asked).values():
        cut = {UNPRUNED if w.recipe else w.block: w.params for w in of_task}
        params = of_task[0].params
        task = evaluation.task(params)
        start = time.monotonic()
        scores = sweep(model, tokenizer, list(cut), [task], params["batch_tokens"])
        seconds = (time.monotonic() - start) / len(scores)
        for score in scores.to_dict("records"):
            block = Block(*(score[key] for key in asking.BLOCK))
            if block in cut:
                values = values_of(model, tokenizer, task, score, cut[block])
                results.save("scores", cut[block], values, seconds)


def _asked(wanted: Wanted) -> str:
    """The same for results of one task, asked alike."""
    shared = {k: v for k, v in wanted.params.items() if k not in asking.BLOCK}
    return results.key(wanted.kind, shared)


def values_of(model, tokenizer, task: evaluation.Task, score: dict, params: dict) -> dict:
    """The values of a result: a row of `sweep`, and what no reading scores."""
    values = {key: score[key] for key in SCORE if key in score}
    values |= packing.stored(score["examples"], score["weights"], score["choices"], task.examples)
    vocabulary = model.config.get_text_config().vocab_size
    values |= {"chance": task.chance(vocabulary), "majority": task.majority}
    if not params["block_size"]:
        blind = without_reading(model, tokenizer, task, params["batch_tokens"])
        floor = max([values["chance"], *blind.values()])
        values |= {"without_reading": blind, "floor": floor}
    return values


def _heal(wanted: Wanted) -> dict:
    params = wanted.params
    folder = paths.RESULTS / "adapters" / results.key("healing", params)[:20]
    stored = results.load("healing", params)
    if stored and stored["values"]["adapter"] and not adapters.saved(folder / "adapter"):
        results.location("healing", params).unlink(missing_ok=True)

    def compute() -> dict:
        shorter = (folder.with_name(results.key("healing", w.params)[:20]) for w in wanted.shorter)
        trunk = next((made for made in shorter if made.exists()), None)
        model, tokenizer = loading.loaded(*_version(wanted))
        found = asdict(healing.heal(model, tokenizer, wanted.recipe, folder, trunk=trunk))
        return found | {"adapter": None if found["adapter"] is None else folder.name}

    return results.load_or_compute("healing", params, compute)
