"""What repairs a cut? Linear maps without training, and healings, each with what it took.

Notebook 14. A map is fitted on texts to heal on, never on those that judge it. Its numbers stay in
memory; what is stored are its scores, and once for all maps of a block what each took.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import STRATEGIES, Block, blocks_of
from lib.data import sets
from lib.models import registry
from replication import measure, paths
from replication.analysis.bootstrap import ci_columns, resampled
from replication.figures.curves import TASKS as UNITS
from replication.figures.style import (
    NORMAL,
    STYLE,
    WIDTH,
    colour,
    finished,
    nothing_measured,
)
from replication.measure import cache as results
from replication.measure import fetching, scores
from replication.measure.experiments import healed, unpruned
from replication.measure.request import Request, grouped, mapped, score
from replication.profiles import Profile, recipe

KINDS = ("full", "folded")  # of linear maps, as healing.linear has them
TASKS = ("c4", "arc_easy")  # that repairs are judged by
NO_MAP = "no answer: no FFN before the cut that it can be folded into"
NOT_REPAIRED = {"unpruned", "plain cut"}
# seconds of the recorded run's repairs, timed side by side: its own are of different hours, and of
# healings that went on from a shorter one and counted their own steps only
TIMED = paths.ROOT / "benchmarks" / "results" / "repairs.csv"
LOOKS = {  # of each repair: colour, marker, line
    "LoRA": (colour("LoRA"), "o", "-"),
    "full map": (colour("full map"), "s", "-"),
    "folded map": (colour("folded map"), "D", "--"),
}
MARKERS = "v^<"  # of the other healings
MINUTES = (
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1000,
)  # of the axis of figure_repair_cost
SHARE = "share of the added\nC4 loss repaired"


def linear_maps(name: str, distances, profile: Profile) -> list[Request]:
    """The plain cut, healed, and with linear maps in its place: both strategies, three depths.

    Column repair.
    """
    sizes, healing = _three_sizes(name, distances, profile), recipe(name, profile)
    requested = unpruned(name, profile, TASKS, repair="unpruned")
    for strategy in STRATEGIES:
        heals = strategy in profile.healed_strategies(name)
        for block in blocks_of(strategy, distances, sizes):
            where = {"fraction": block.size / distances.num_layers, "strategy": strategy}
            for task in TASKS:
                labels = where | {"treatment": "unhealed", "repair": "plain cut"}
                requested.append(score(name, profile, task, block, **labels))
                labels = where | {"treatment": "healed", "repair": "LoRA"}
                if heals:
                    requested.append(score(name, profile, task, block, healing, **labels))
                for kind in KINDS:
                    labels = where | {"treatment": "mapped", "repair": f"{kind} map"}
                    requested.append(mapped(name, profile, task, block, kind, **labels))
    return requested


def repairs(name: str, distances, profile: Profile) -> list[Request]:
    """All repairs of the similar block at the middle depth: those of `maps`, and other healings.

    Fewer steps; about as many parameters as the full map (of the ranks of notebook 07); adapters
    after the cut only (if layers are there). The models of notebook 07 are asked ARC-Easy's test
    split as well.
    """
    tested = profile.arc_easy_test_questions and name in profile.rank_models
    more = ["arc_easy_test"] if tested else []
    size = _middle(_three_sizes(name, distances, profile))
    block = Block(distances.best_start(size), size)
    requested = [
        request
        for request in linear_maps(name, distances, profile)
        if request.block.size in (0, size) and request.labels["strategy"] != "simple"
    ]
    requested += unpruned(name, profile, more, repair="unpruned")
    labels = {"fraction": size / distances.num_layers, "strategy": "similarity"}
    labels |= {"treatment": "unhealed", "repair": "plain cut"}
    requested += [score(name, profile, task, block, **labels) for task in more]
    changes = {"LoRA": {}} | _other_healings(name, block, distances.num_layers - size, profile)
    for repair, change in changes.items():  # of the first, TASKS are in `maps`
        tasks = [*TASKS, *more] if change else more
        labels = {"repair": repair}
        requested += healed(
            name, distances, profile, tasks, ["similarity"], [size], labels, **change
        )
    return requested


def _other_healings(name: str, block: Block, layers_left: int, profile: Profile) -> dict[str, dict]:
    """Changes of the recipe, by the name of the repair."""
    healing = recipe(name, profile)
    changes = {"LoRA, a quarter of the steps": {"steps": max(1, healing.steps // 4)}}
    adapter = _adapter(name)
    if adapter:  # the rank whose numbers are nearest to the full map's
        of_map = registry.configuration(name)["hidden_size"] ** 2
        ranks = profile.ablation_ranks
        rank = min(ranks, key=lambda rank: abs(rank * layers_left * adapter - of_map))
        if rank != healing.rank:
            changes[f"LoRA of rank {rank}"] = {"rank": rank}
    if block.start < layers_left:
        changes["LoRA after the cut"] = {"first_layer": block.start}
    return changes


@cache
def _adapter(name: str) -> int | None:
    """Return the parameters of a layer's adapters of rank 1; None where they are not known."""
    from lib.healing import lora
    from lib.models import sizes

    try:
        skeleton = sizes.skeleton(name)
        return skeleton and lora.parameters(skeleton, rank=1) // registry.num_layers(name)
    except ValueError:  # it has no FFN that LoRA could be put on
        return None


def _three_sizes(name: str, distances, profile: Profile) -> list[int]:
    """The first, middle and last number of layers dropped of those at which healings are made."""
    sizes = profile.healed_sizes(distances.num_layers, name)
    return sorted({sizes[0], _middle(sizes), sizes[-1]})


def _middle(sizes: Sequence[int]) -> int:
    return sizes[len(sizes) // 2]


# ---- measuring ------------------------------------------------------------------------------


def fetch(requests: Sequence[Request]) -> list[dict]:
    """The records of scores with a linear map, measured if they are missing."""
    return fetching.fetch(requests, _measure)


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return the scores of repairs as rows, each with what it took.

    The columns of `scores.table`, and repair, seconds (of fitting, or of all steps of a healing,
    also of a shorter one that it went on from; not of loading the model; of the recorded run as in
    TIMED, NaN for what is not there), parameters (numbers that were trained or fitted), error (of a
    map, on calibration texts held out: what it leaves of the squared change; 1 for the plain cut).
    """
    with_map = [r for r in requests if r.kind == "repair"]
    others = [r for r in requests if r.kind == "scores"]
    records = dict(zip(map(id, others), scores.fetch(others), strict=True))
    records |= dict(zip(map(id, with_map), fetch(with_map), strict=True))
    return pd.DataFrame([scores.row(r, records[id(r)]) | _cost(r) for r in requests])


measure.FETCH["repair"] = fetch
measure.TABLES |= {"linear_maps": table, "repairs": table}


def _cost(request: Request) -> dict:
    """Seconds and parameters of a repair, as far as they are known."""
    unknown = float("nan")
    if request.kind == "repair":
        record = _stored(request.maps)
        of_maps = record["values"] if record else {}
        cost = {"seconds": unknown, "parameters": unknown, "error": unknown}
        cost |= of_maps.get(request.params["map"], {})
        return cost | {"seconds": _seconds(request, record, cost["seconds"])}
    recipe = request.recipe
    if recipe is None:
        return {"seconds": 0.0, "parameters": 0, "error": unknown}
    record, name = _stored(request.healing), request.params["model"]
    layers = (registry.num_layers(name) or 0) - request.block.size - recipe.first_layer
    return {
        "seconds": _seconds(request, record, record["seconds"] if record else unknown),
        "parameters": recipe.rank * layers * (_adapter(name) or unknown),
        "error": unknown,
    }


def _seconds(request: Request, record: dict | None, stored: float) -> float:
    """Return the stored seconds of a repair; of a recorded one those of TIMED, or NaN."""
    if record and not record.get("restored"):
        return stored
    if request.labels["strategy"] != "similarity":
        return float("nan")
    repair = request.params["model"], request.block.size, request.labels["repair"]
    return _timed(TIMED).get(repair, float("nan"))


@cache
def _timed(file: Path) -> dict[tuple, float]:
    """The seconds of each repair in such a table, by model, layers dropped and name."""
    table = pd.read_csv(file).set_index(["model", "dropped", "repair"])
    return (60 * table.minutes).to_dict()


def _stored(request: Request) -> dict | None:
    (keyed,) = fetching.keyed_by_machine([request])
    return results.load(keyed.kind, keyed.params)


def _measure(missing: Sequence[Request]) -> None:
    """Fit the maps whose scores are missing, and store their scores; a model and task at a time."""
    from lib.models import loading

    for of_model in grouped(missing, lambda r: r.params["model"]).values():
        weights = (of_model[0].params[key] for key in ("model", "quantization", "dtype"))
        model, tokenizer = loading.load_cached(*weights)
        fitted = {}
        for block, requests in grouped(of_model, lambda r: r.block).items():
            kinds = dict.fromkeys(r.params["map"] for r in requests)
            of_block = fit(model, tokenizer, requests[0], kinds)
            fitted |= {(block, kind): of_block.get(kind) for kind in kinds}
        for requests in grouped(of_model, lambda r: r.params["task"]).values():
            _score(model, tokenizer, requests, fitted)


def fit(model, tokenizer, request: Request, kinds: Sequence[str]) -> dict:
    """The linear maps of each of `kinds` (`linear.Mapped`) for the block of a score.

    What they took is stored, if it is not yet.
    """
    from lib.healing import linear
    from lib.similarity import calibration_batches

    params, count = request.params, request.params["map_sequences"]
    texts = sets.healing_texts(sets.source(params["healing_data"][0]), count)[:count]
    lengths = params["map_tokens"], params["map_batch_tokens"]
    batches = calibration_batches(texts, tokenizer, *lengths)
    fitted = linear.fitted(model, request.block, kinds, batches)
    (keyed,) = fetching.keyed_by_machine([request.maps])
    record = results.load(keyed.kind, keyed.params)
    costs = {kind: cost for kind, (_, cost) in fitted.items()}
    costs |= record["values"] if record else {}
    seconds = sum(cost["seconds"] for cost in costs.values())
    results.save(keyed.kind, keyed.params, costs, seconds)
    return {kind: block for kind, (block, _) in fitted.items()}


def _score(model, tokenizer, requests: Sequence[Request], fitted: dict) -> None:
    """Sweep one task over all blocks with a map in their place, and store a result each."""
    from lib import evaluation
    from lib.healing import linear
    from lib.sweep import sweep

    of_map = {}
    for r in requests:
        block = fitted[r.block, r.params["map"]]
        if block is None:
            results.save("repair", r.params, {}, 0, NO_MAP)
        else:
            of_map[block] = r
    task = evaluation.task_of(requests[0].params)
    batch_tokens = requests[0].params["batch_tokens"]
    with linear.reading_ffn(model, of_map):
        swept = sweep(model, tokenizer, list(of_map), [task], batch_tokens).to_dict("records")
    for r, row in zip(of_map.values(), swept[1:], strict=True):
        values = scores.values_of(model, tokenizer, task, row, r.params)
        results.save("repair", r.params, values, 0)


# ---- the statistic --------------------------------------------------------------------------


def summary(scores: pd.DataFrame) -> pd.DataFrame:
    """A row a repair and depth, of scores as `table` gives them.

    c4 (nats a token) and arc_easy (accuracy), each with the ends of its 95 % interval; share of the
    loss that the plain cut adds which the repair takes away (1: all of it); minutes, parameters.
    """
    by = ["model", "strategy", "block_size", "repair"]
    reach = NORMAL * scores.standard_error
    scores = scores.assign(low=scores.value - reach, high=scores.value + reach)
    rows = scores.drop_duplicates(by).set_index(by)[["seconds", "parameters"]]
    for task, of_task in scores.groupby("task", sort=False):
        of_task = of_task.drop_duplicates(by).set_index(by)
        for end, column in (("", "value"), (" low", "low"), (" high", "high")):
            rows[task + end] = of_task[column]
    rows = rows.reset_index()
    whole = rows[rows.block_size == 0].set_index("model").c4
    cut = by[:3]
    plain = rows[rows.repair == "plain cut"].set_index(cut).c4
    before = pd.Series(plain.reindex(pd.MultiIndex.from_frame(rows[cut])).values)
    rows["share"] = (before - rows.c4) / (before - rows.model.map(whole))
    rows.insert(len(by), "minutes", rows.pop("seconds") / 60)
    return rows[[column for column in rows if column != "parameters"] + ["parameters"]]


def shares(scores: pd.DataFrame) -> pd.DataFrame:
    """Of each repair and depth: the share of the C4 loss added by the plain cut that it takes away.

    Columns share, share_low and share_high: with a 95 % interval over the texts, paired.
    """
    losses = scores[(scores.task == "c4") & scores.value.notna()]
    keys = ["model", "strategy", "block_size", "repair", "task"]
    whole = losses[losses.block_size == 0].drop_duplicates("model").set_index("model")
    rows = []
    for (model, *_), cut in losses[losses.block_size > 0].groupby(keys[:3], sort=False):
        plain = cut[cut.repair == "plain cut"].head(1)
        repaired = cut[~cut.repair.isin(NOT_REPAIRED) & cut.model.isin(whole.index)]
        for row in repaired.to_dict("records") if len(plain) else ():
            examples = np.stack([whole.examples[model], plain.examples.iloc[0], row["examples"]])
            unpruned, before, after = resampled(examples, np.asarray(row["weights"]), "c4").T
            share = (before - after) / (before - unpruned)
            rows.append({key: row[key] for key in keys} | ci_columns(share, "share", "share_"))
    return pd.DataFrame(rows, columns=[*keys, "share", "share_low", "share_high"])


# ---- the figures ----------------------------------------------------------------------------


def figure_repair(scores: pd.DataFrame) -> Figure:
    """What each repair gives back, against the fraction dropped: a column a model and strategy.

    scores: of `table`. Above: `shares`; below: accuracy.
    """
    table = _with_shares(scores)
    columns = _repaired(table, ["model", "strategy"])
    if not columns:
        return nothing_measured(table)
    with plt.rc_context(STYLE):
        figure, axes = _two_rows(columns)
        for (model, strategy), (above, below) in zip(columns, axes.T, strict=True):
            of_model = table[table.model == model]
            cuts = of_model[of_model.strategy == strategy].sort_values("fraction")
            above.set_title(f"{registry.label(model)}\n{strategy}", loc="left")
            for axis, task in ((above, "c4"), (below, "arc_easy")):
                if _backdrop(axis, of_model[of_model.task == task], cuts):
                    for place, repair in enumerate(["plain cut", *LOOKS]):
                        line = cuts[(cuts.task == task) & (cuts.repair == repair)]
                        _line(axis, line, line.fraction + 0.01 * (place - 1.5), repair)
                    axis.set_xlabel("fraction dropped")
        _y_labels(figure, axes)
        return finished(figure, table, legend="bars: 95 %")


def figure_repair_cost(scores: pd.DataFrame) -> Figure:
    """What each repair gives back, against its minutes, at one depth: a column a model.

    scores: of `table`, of `healings`. Above: `shares`; below: accuracy.
    """
    table = _with_shares(scores).assign(minutes=lambda rows: rows.seconds / 60)
    columns = _repaired(table[table.minutes.notna()], ["model"])
    if not columns:
        return nothing_measured(table)
    others = [r for r in dict.fromkeys(table.repair) if r not in {*LOOKS, *NOT_REPAIRED}]
    markers = dict(zip(others, MARKERS, strict=False))
    with plt.rc_context(STYLE):
        figure, axes = _two_rows(columns)
        for (model,), (above, below) in zip(columns, axes.T, strict=True):
            of_model = table[table.model == model]
            known = of_model.value.notna() & of_model.minutes.notna()
            cuts = of_model[(of_model.strategy != "none") & known]
            dropped = f"{cuts.block_size.max()} layers dropped"
            above.set_title(f"{registry.label(model)}\n{dropped}", loc="left")
            for axis, task in ((above, "c4"), (below, "arc_easy")):
                mine = cuts[(cuts.task == task) & ~cuts.repair.isin(NOT_REPAIRED)]
                if _backdrop(axis, of_model[of_model.task == task], cuts):
                    for repair, line in mine.groupby("repair", sort=False):
                        _line(axis, line, line.minutes, repair, markers)
                    _minutes(axis, cuts.minutes[~cuts.repair.isin(NOT_REPAIRED)])
        _y_labels(figure, axes)
        return finished(figure, table, legend="bars: 95 %")


def _with_shares(scores: pd.DataFrame) -> pd.DataFrame:
    """The scores with the columns of `shares`."""
    keys = ["model", "strategy", "block_size", "repair", "task"]
    return scores.merge(shares(scores), on=keys, how="left")


def _repaired(table: pd.DataFrame, by: list[str]) -> list[tuple]:
    """The models (and strategies) of which a repair has a score."""
    repaired = table[table.value.notna() & ~table.repair.isin(NOT_REPAIRED)]
    return list(repaired[by].drop_duplicates().itertuples(index=False, name=None))


def _two_rows(columns: list) -> tuple[Figure, np.ndarray]:
    """Shares above, accuracies below."""
    size = max(WIDTH, 2.2 * len(columns)), 5
    return plt.subplots(2, len(columns), figsize=size, squeeze=False, sharey="row")


def _backdrop(axis, of_task: pd.DataFrame, cuts: pd.DataFrame) -> bool:
    """Draw where the unpruned model, the plain cut and guessing lie; whether some repair is
    measured there: if none is, the axis is removed."""
    mine = of_task[of_task.index.isin(cuts.index) & of_task.value.notna()]
    if mine[~mine.repair.isin(NOT_REPAIRED)].empty:
        axis.remove()
        return False
    whole = of_task[of_task.block_size == 0].iloc[0]
    is_loss = whole.task == "c4"
    axis.axhline(1 if is_loss else whole.value, color="black", ls="--", lw=1, label="unpruned")
    if not is_loss:
        axis.axhline(whole.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
    plain = mine[mine.repair == "plain cut"]
    if is_loss or len(plain) == 1:
        height = 0 if is_loss else plain.value.iloc[0]
        axis.axhline(height, color="black", ls=":", lw=1, label="plain cut")
    of = "texts" if is_loss else "questions"
    axis.set_title(f"{whole.n:.0f} {of}", loc="right", fontsize=7)
    return True


def _line(axis, line: pd.DataFrame, places: pd.Series, repair: str, markers: dict | None = None):
    """The marks of one repair, with bars; markers: of other healings than LOOKS has. In loss the
    plain cut is the line at 0."""
    is_loss = set(line.task) == {"c4"}
    if line.empty or (is_loss and repair == "plain cut"):
        return
    if repair == "plain cut":
        look = {"color": "black", "marker": "x", "ls": ":"}
    elif repair in LOOKS:
        look = dict(zip(("color", "marker", "ls"), LOOKS[repair], strict=True))
    else:
        look = {"color": LOOKS["LoRA"][0], "marker": markers[repair], "ls": "", "mfc": "white"}
    values, bars = line.value, NORMAL * line.standard_error
    if is_loss:
        values, bars = line.share, [line.share - line.share_low, line.share_high - line.share]
    axis.errorbar(places, values, bars, label=repair, ms=5, elinewidth=0.8, **look)


def _minutes(axis, minutes: pd.Series) -> None:
    """A logarithmic axis with a few plain numbers."""
    ends = minutes.min() / 1.6, minutes.max() * 1.6
    axis.set(xscale="log", xlim=ends, xlabel="minutes of fitting or training")
    axis.minorticks_off()
    axis.set_xticks([m for m in MINUTES if ends[0] <= m <= ends[1]])
    axis.xaxis.set_major_formatter("{x:g}")


def _y_labels(figure: Figure, axes: np.ndarray) -> None:
    """The name of a row at its first panel that is drawn."""
    for row, text in zip(axes, (SHARE, UNITS["arc_easy"]), strict=True):
        for axis in [axis for axis in row if axis in figure.axes][:1]:
            axis.set_ylabel(text)
            axis.tick_params(labelleft=True)
