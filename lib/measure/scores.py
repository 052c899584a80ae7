"""Scores of pruned models, healed or not, as tidy tables: ask, fetch, table.

Every function takes the maps of some models and a profile, and returns one table over all of them.
What the results hold is read; what is missing is measured and stored, one result per block and
task. Columns: profile, model, dtype, quantization, block_start, block_size, task, shots, seed,
rank, value, standard_error, n, chance, majority, floor, …, status, and what the experiment shows
(fraction of the layers dropped, strategy, treatment; of the ablations also ablation and variant).
"""

import time
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from lib import evaluation, healing, paths, results
from lib.blocks import STRATEGIES, UNPRUNED, Block, BlockDistances
from lib.measure import experiments, fetching, packing
from lib.measure import wanted as asking
from lib.measure.experiments import TASKS
from lib.measure.fetching import fetched
from lib.measure.wanted import Wanted, grouped
from lib.models import adapters, loading
from lib.profiles import Profile, Recipe
from lib.sweep import sweep, without_reading

Maps = dict[str, BlockDistances]
SCORE = (
    "value",
    "standard_error",
    "n",
    "chance",
    "majority",
    "floor",
    *evaluation.TOLD,
    "shortened",
)
NO_SCORE = dict.fromkeys(SCORE, float("nan")) | {"n": 0, "examples": None, "weights": None}
UNSOLVED = "no answer: the unpruned model solves none"


def fetch(wanted: Sequence[Wanted]) -> list[dict]:
    """The records of scores and healings, measured if they are missing."""
    return fetched(wanted, _measure)


def measure(
    name: str, profile: Profile, blocks: Sequence[Block], tasks: Sequence[str]
) -> pd.DataFrame:
    """Scores of model `name`, unpruned and without each block, unhealed; by task, then block."""
    blocks = dict.fromkeys([UNPRUNED, *blocks])
    wanted = [asking.score(name, profile, task, block) for task in tasks for block in blocks]
    return table(wanted, fetch(wanted))


def healed_block(
    name: str, profile: Profile, block: Block, recipe: Recipe, tasks: Sequence[str]
) -> pd.DataFrame:
    """The scores of one healed model, a row a task; it is healed only if one is missing."""
    wanted = [asking.score(name, profile, task, block, recipe) for task in tasks]
    return table(wanted, fetch(wanted))


def unhealed(maps: Maps, profile: Profile, tasks: Sequence[str] = TASKS) -> pd.DataFrame:
    """The pruning curves of both strategies, and the unpruned model (strategy "none")."""
    return _table([experiments.unhealed(*model, profile, tasks) for model in maps.items()])


def healed(
    maps: Maps,
    profile: Profile,
    tasks: Sequence[str] = TASKS,
    strategies: Sequence[str] = STRATEGIES,
    sizes: Sequence[int] | None = None,
    **changes,
) -> pd.DataFrame:
    """Scores after healing. sizes: by default the profile's. changes: of the recipe, as rank=2.

    A healing that diverged or ran out of memory has no score: its rows say so in `status`.
    """
    how = (profile, tasks, strategies, sizes)
    return _table([experiments.healed(*m, *how, **changes) for m in maps.items()])


def prompts(maps: Maps, profile: Profile) -> pd.DataFrame:
    """Figure 7: other prompts, with the columns ablation and variant."""
    return _varied(experiments.prompts, maps, profile, profile.ablation_models)


def seeds(maps: Maps, profile: Profile) -> pd.DataFrame:
    """Figure 8: other seeds of healing."""
    return _varied(experiments.seeds, maps, profile, profile.ablation_models)


def ranks(maps: Maps, profile: Profile) -> pd.DataFrame:
    """Figure 9: other LoRA ranks."""
    return _varied(experiments.ranks, maps, profile, profile.rank_models)


def _varied(wanted, maps: Maps, profile: Profile, names) -> pd.DataFrame:
    return _table([wanted(n, maps[n], profile) for n in names if n in maps])


def reasoning(maps: Maps, profile: Profile) -> pd.DataFrame:
    """HellaSwag and GSM8K, the question sets of the paper's second version, unhealed.

    hellaswag and gsm8k_bpb (bits per byte of the gold solution) at every block size; gsm8k (exact
    match of what the model writes) where the profile heals, too. Where the unpruned model solves no
    problem, no pruned one is asked; these rows have no value, only a status.
    """
    parts = []
    for name, distances in maps.items():
        wanted = experiments.reasoning(name, distances, profile)
        records = fetch(wanted)
        written = experiments.written(name, distances, profile)
        values = records[-1]["values"]
        if values is None or values["value"] > 0:
            answers = fetch(written)
        else:
            answers = [_unasked(records[-1], w.block) for w in written]
        parts.append(table([*wanted, *written], [*records, *answers]))
    return pd.concat(parts, ignore_index=True)


def _unasked(unpruned: dict, block: Block) -> dict:
    """The record of a pruned model that is not asked, since the unpruned one solves nothing."""
    where = {"block_start": block.start, "block_size": block.size}
    return {"params": unpruned["params"] | where, "values": None, "status": UNSOLVED}


def healings(maps: Maps, profile: Profile) -> pd.DataFrame:
    """How each healing of notebook 03 went, one row each; needs the adapters of none."""
    rows = []
    for model in maps.items():
        wanted = experiments.healed(*model, profile, ["c4"])
        for w, record in zip(wanted, fetch([w.healing for w in wanted]), strict=True):
            values = record["values"] or {"losses": []}
            ends = values["losses"] or [None]
            rows.append(
                {
                    "strategy": w.shown["strategy"],
                    "block_start": w.block.start,
                    "block_size": w.block.size,
                    "status": record["status"],
                    "first_loss": ends[0],
                    "last_loss": ends[-1],
                    "tokens": values.get("real_tokens"),
                    "epochs": values.get("epochs"),
                    "seconds": record.get("seconds"),
                }
            )
    return pd.DataFrame(rows)


# ---- tables ---------------------------------------------------------------------------------


def _table(wanted: list[list[Wanted]]) -> pd.DataFrame:
    """Ask, fetch, table: of every model in turn, so that its weights are loaded once."""
    parts = [table(part, fetch(part)) for part in wanted]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def table(wanted: Sequence[Wanted], records: Sequence[dict]) -> pd.DataFrame:
    """Scores as the rows of a figure's CSV; one that is not there is drawn as missing."""
    return pd.DataFrame([_row(*pair) for pair in zip(wanted, records, strict=True)])


def _row(wanted: Wanted, record: dict) -> dict:
    params, values = record["params"], record["values"]
    shown = dict(wanted.shown)
    told = ("model", "dtype", "quantization", "block_start", "block_size", "task")
    recipe = params.get("recipe", {})
    return (
        {"profile": shown.pop("profile")}
        | {key: params[key] for key in told}
        | {"shots": params.get("shots"), "seed": recipe.get("seed"), "rank": recipe.get("rank")}
        | (NO_SCORE if values is None else _shown(values))
        | {"status": record["status"]}
        | shown
    )


def _shown(values: dict) -> dict:
    """What a row shows of a stored score, also of one that was stored with less."""
    told = {key: values.get(key) for key in SCORE}
    told["examples"], told["weights"] = packing.examples_of(values)
    return NO_SCORE | {key: value for key, value in told.items() if value is not None}


# ---- measuring ------------------------------------------------------------------------------


def _measure(missing: Sequence[Wanted]) -> None:
    """Measure and store scores and healings; each model is loaded once for all that it needs."""
    for of_version in grouped(missing, _version).values():
        for cure, found in grouped(of_version, lambda w: w.recipe).items():
            if cure is None:
                _score(*_base(found[0]), found)
            else:
                _score_healed(found)


def _version(wanted: Wanted) -> tuple:
    """The same for results of one loaded model: unhealed versions are cut in memory."""
    weights = (wanted.params[key] for key in ("model", "quantization", "dtype"))
    return (*weights, wanted.block if wanted.recipe else UNPRUNED)


def _base(wanted: Wanted):
    """(model, tokenizer) that a result is of."""
    return loading.loaded(*_version(wanted))


def _score_healed(wanted: list[Wanted]) -> None:
    """Heal one block and score it on the tasks that are wanted; not if the healing failed."""
    record = _heal(wanted[0].healing)
    scores = [w for w in wanted if w.kind == "scores"]
    if record["status"] == "ok" and scores:
        model, tokenizer = _base(wanted[0])
        adapter = paths.RESULTS / "adapters" / record["values"]["adapter"] / "adapter"
        with adapters.attached(model, adapter):
            _score(model, tokenizer, scores)


def _score(model, tokenizer, wanted: list[Wanted]) -> None:
    """Sweep every task over the blocks that are wanted of it, and store a result each."""
    for of_task in grouped(wanted, _asked).values():
        cut = {UNPRUNED if w.recipe else w.block: w.params for w in of_task}
        params = of_task[0].params
        task = evaluation.task(params)
        start = time.monotonic()
        scores = sweep(model, tokenizer, list(cut), [task], params["batch_tokens"])
        seconds = (time.monotonic() - start) / len(scores)
        for row in scores.itertuples():
            block = Block(row.block_start, row.block_size)
            if block in cut:
                values = _stored(model, tokenizer, task, row, cut[block])
                results.save("scores", cut[block], values, seconds)


def _asked(wanted: Wanted) -> str:
    """The same for results of one task, asked alike."""
    ours = {k: v for k, v in wanted.params.items() if k not in ("block_start", "block_size")}
    return results.key(wanted.kind, ours)


def _stored(model, tokenizer, task: evaluation.Task, row, params: dict) -> dict:
    """The values of a result: a row of `sweep`, and what no reading scores."""
    scored = row._asdict()
    values = {key: scored[key] for key in SCORE if key in scored}
    values |= packing.stored(row.examples, row.weights, row.choices, task.examples)
    vocabulary = model.config.get_text_config().vocab_size
    values |= {"chance": task.chance(vocabulary), "majority": task.majority}
    if not params["block_size"]:
        blind = without_reading(model, tokenizer, task, params["batch_tokens"])
        values |= {"without_reading": blind}
        values |= {"floor": max([values["chance"], *blind.values()])}
    return values


def heal(name: str, profile: Profile, block: Block, recipe: Recipe) -> dict:
    """The stored record of a healing, made first if it is missing or its adapter is gone."""
    (wanted,) = fetching.here([asking.healing(name, profile, block, recipe)])
    return _heal(wanted)


def _heal(wanted: Wanted) -> dict:
    params = wanted.params
    folder = paths.RESULTS / "adapters" / results.key("healing", params)[:20]
    stored = results.load("healing", params)
    if stored and stored["values"]["adapter"] and not adapters.saved(folder / "adapter"):
        results.discard("healing", params)

    def compute() -> dict:
        model, tokenizer = _base(wanted)
        found = asdict(healing.heal(model, tokenizer, wanted.recipe, folder))
        return found | {"adapter": None if found["adapter"] is None else folder.name}

    return results.load_or_compute("healing", params, compute)
