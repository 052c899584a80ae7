"""Measured scores of pruned models, healed or not, as tidy tables; read from results if there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import pandas as pd

from lib import adapters, answers, evaluation, healing, keys, models, paths, results
from lib.profiles import Profile
from lib.pruning import UNPRUNED, Block, similarity_block, simple_block
from lib.similarity import BlockDistances
from lib.sweep import sweep, without_reading

STRATEGIES = ("similarity", "simple")
SCORE = ("value", "standard_error", "n", "chance", "majority", "floor", *answers.TOLD, "shortened")
NO_SCORE = dict.fromkeys(SCORE, float("nan")) | {"n": 0, "examples": None, "weights": None}


def measure(name: str, profile: Profile, blocks: Sequence[Block], tasks: list[str]) -> pd.DataFrame:
    """Scores of model `name`, unpruned and without each block; tasks are keys of evaluation.KINDS.

    What the results hold is read; what is missing is swept and stored, one result per block and
    task. The columns are those of `sweep` but choices, and profile, model, dtype, quantization,
    fraction (of layers dropped), chance, majority, shots, and in rows of the unpruned model floor:
    what the best answer scores that reads no question (`sweep.without_reading`), or chance.
    """
    blocks = list(dict.fromkeys([UNPRUNED, *blocks]))
    identity = models.identity(name, profile)
    records = []
    for task in tasks:
        wanted = {b: keys.score(identity, profile, task, b.start, b.size) for b in blocks}
        missing = [block for block in blocks if results.load("scores", wanted[block]) is None]
        if missing and not results.draws_only():
            model, tokenizer = models.base(name, profile)
            _sweep_and_store(model, tokenizer, profile, task, {b: wanted[b] for b in missing})
        records += [_row(profile, wanted[block]) for block in blocks]
    return pd.DataFrame(records)


def unhealed(
    name: str, profile: Profile, distances: BlockDistances, tasks: list[str]
) -> pd.DataFrame:
    """The pruning curves of both strategies: `measure`, with columns strategy and treatment.

    The unpruned model is a row of its own (strategy "none", treatment "unpruned").
    """
    num_layers = distances.num_layers
    chosen = {s: blocks_of(s, distances, profile.block_sizes(num_layers)) for s in STRATEGIES}
    scores = measure(name, profile, [*chosen["similarity"], *chosen["simple"]], tasks)
    scores["fraction"] = scores.block_size / num_layers
    parts = [scores[scores.block_size == 0].assign(strategy="none", treatment="unpruned")]
    for strategy, blocks in chosen.items():
        wanted = pd.MultiIndex.from_tuples([(b.start, b.size) for b in blocks])
        mine = pd.MultiIndex.from_frame(scores[["block_start", "block_size"]]).isin(wanted)
        parts.append(scores[mine].assign(strategy=strategy, treatment="unhealed"))
    return pd.concat(parts, ignore_index=True)


def healed(
    name: str,
    profile: Profile,
    distances: BlockDistances,
    tasks: list[str],
    strategies: Sequence[str] = STRATEGIES,
    sizes: Sequence[int] | None = None,
    **changes,
) -> pd.DataFrame:
    """Scores after healing, in the columns of `unhealed` and with seed and rank.

    sizes: by default the profile's. changes: of the recipe, as rank=2 or seed=1. A healing that
    diverged or ran out of memory has no score: its rows say so in `status`, with no value.
    """
    recipe = healing.recipe(name, profile, **changes)
    sizes = sizes or profile.healed_sizes(distances.num_layers)
    records = []
    for strategy in strategies:
        for block in blocks_of(strategy, distances, sizes):
            found = healed_block(name, profile, block, recipe, tasks)
            records.append(found.assign(strategy=strategy, treatment="healed"))
    table = pd.concat(records, ignore_index=True)
    table["fraction"] = table.block_size / distances.num_layers
    return table


def variants(
    name: str,
    distances: BlockDistances,
    tasks: list[str],
    ablations: dict[str, dict[str, tuple[Profile, dict]]],
    sizes_of: Callable[[int], list[int]],
) -> pd.DataFrame:
    """Healed scores of variants of a measurement, with columns ablation and variant.

    ablations: ablation -> variant -> (profile, changes of the recipe). An ablation that is called
    like a strategy uses it, others the similarity-informed one. sizes_of: block sizes, given L.
    """
    parts = {(ablation, variant): [] for ablation in ablations for variant in ablations[ablation]}
    for size in [0, *sizes_of(distances.num_layers)]:  # a model is loaded once for all variants
        for (ablation, variant), rows in parts.items():
            profile, changes = ablations[ablation][variant]
            if size:
                strategies = [ablation] if ablation in STRATEGIES else ["similarity"]
                found = healed(name, profile, distances, tasks, strategies, [size], **changes)
            else:
                found = measure(name, profile, [], tasks)
                found = found.assign(fraction=0.0, strategy="none", treatment="unpruned")
            rows.append(found.assign(ablation=ablation, variant=variant))
    return pd.concat([part for rows in parts.values() for part in rows], ignore_index=True)


def healing_table(name: str, profile: Profile, distances: BlockDistances) -> pd.DataFrame:
    """How each healing of notebook 03 went, one row each; needs the adapters of none."""
    identity, recipe = models.identity(name, profile), healing.recipe(name, profile)
    rows = []
    for strategy in STRATEGIES:
        for block in blocks_of(strategy, distances, profile.healed_sizes(distances.num_layers)):
            key = keys.healing(identity, block.start, block.size, recipe)
            record = results.load("healing", key) or _tried(name, profile, block, recipe)
            values = record["values"]
            ends = values["losses"] or [None]
            rows.append(
                {
                    "strategy": strategy,
                    "block_start": block.start,
                    "block_size": block.size,
                    "status": record["status"],
                    "first_loss": ends[0],
                    "last_loss": ends[-1],
                    "tokens": values["real_tokens"],
                    "epochs": values["epochs"],
                    "seconds": record["seconds"],
                }
            )
    return pd.DataFrame(rows)


def blocks_of(strategy: str, distances: BlockDistances, sizes: Sequence[int]) -> list[Block]:
    """The blocks of a strategy, "similarity" or "simple"."""
    if strategy == "similarity":
        return [similarity_block(distances, size) for size in sizes]
    return [simple_block(distances.num_layers, size) for size in sizes]


def heal(name: str, profile: Profile, block: Block, recipe: healing.Recipe) -> dict:
    """The stored record of a healing, made first if it is missing or its adapter is gone."""
    params = keys.healing(models.identity(name, profile), block.start, block.size, recipe)
    folder = paths.RESULTS / "adapters" / results.key("healing", params)[:20]
    stored = results.load("healing", params)
    if stored and stored["values"]["adapter"] and not adapters.saved(folder / "adapter"):
        results.discard("healing", params)

    def compute() -> dict:
        model, tokenizer = models.base(name, profile, block)
        found = asdict(healing.heal(model, tokenizer, UNPRUNED, recipe, folder))
        return found | {"adapter": None if found["adapter"] is None else folder.name}

    return results.load_or_compute("healing", params, compute)


def healed_block(
    name: str, profile: Profile, block: Block, recipe: healing.Recipe, tasks: list[str]
) -> pd.DataFrame:
    """The scores of one healed model, a row a task; it is healed only if one is missing."""
    identity = models.identity(name, profile)
    cure = keys.healing({}, block.start, block.size, recipe)
    wanted = {
        task: keys.score(identity, profile, task, block.start, block.size) | cure for task in tasks
    }
    missing = {task: key for task, key in wanted.items() if results.load("scores", key) is None}
    if missing:
        record = _tried(name, profile, block, recipe)
        if record["status"] != "ok":
            return pd.DataFrame([_row(profile, key, record["status"]) for key in wanted.values()])
        if not results.draws_only():
            model, tokenizer = models.base(name, profile, block)
            adapter = paths.RESULTS / "adapters" / record["values"]["adapter"] / "adapter"
            with adapters.attached(model, UNPRUNED, adapter):
                for task, key in missing.items():
                    _sweep_and_store(model, tokenizer, profile, task, {UNPRUNED: key})
    return pd.DataFrame([_row(profile, key) for key in wanted.values()])


def _tried(name: str, profile: Profile, block: Block, recipe: healing.Recipe) -> dict:
    """`heal`, or where this run only draws and it is missing, a record that says so."""
    try:
        return heal(name, profile, block, recipe)
    except results.NotMeasured:
        values = {"losses": [], "real_tokens": None, "epochs": None}
        return {"status": results.NotMeasured.status, "values": values, "seconds": None}


def _sweep_and_store(model, tokenizer, profile: Profile, name: str, wanted: dict) -> None:
    """Sweep one task over the blocks of `wanted` and store a result each."""
    task = evaluation.task(name, profile)
    start = time.monotonic()
    scores = sweep(model, tokenizer, list(wanted), [task], profile.batch_tokens)
    seconds = (time.monotonic() - start) / len(scores)
    vocabulary = model.config.get_text_config().vocab_size
    for row in scores.itertuples():
        block = Block(row.block_start, row.block_size)
        if block in wanted:
            params, scored = wanted[block], row._asdict()
            values = {key: scored[key] for key in SCORE if key in scored}
            values |= answers.stored(row.examples, row.weights, row.choices, task.examples)
            values |= {"chance": task.chance(vocabulary), "majority": task.majority}
            if not params["block_size"]:
                blind = without_reading(model, tokenizer, task, profile.batch_tokens)
                values |= {"without_reading": blind}
                values |= {"floor": max([values["chance"], *blind.values()])}
            results.save("scores", params, values, seconds)


def _row(profile: Profile, params: dict, status: str = results.NotMeasured.status) -> dict:
    """A stored score as a row of a figure's CSV; one that is not there is drawn as missing.

    status: why it is not there.
    """
    record = results.load("scores", params)
    values = NO_SCORE
    if record:
        told = {key: record["values"].get(key) for key in SCORE}
        told["examples"], told["weights"] = answers.examples_of(record["values"])
        values = values | {key: value for key, value in told.items() if value is not None}
    known = ("model", "dtype", "quantization", "block_start", "block_size", "task")
    recipe = params.get("recipe", {})
    return (
        {"profile": profile.name}
        | {key: params[key] for key in known}
        | {"shots": params.get("shots"), "seed": recipe.get("seed"), "rank": recipe.get("rank")}
        | values
        | {"status": "ok" if record else status}
    )
