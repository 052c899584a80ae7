"""What repairs a cut? Linear maps without training, and healings, each with what it took.

Notebook 14. A map is fitted on texts to heal on, never on those that judge it. Its numbers stay in
memory; what is stored are its scores, and once for all maps of a block what each took.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import UNPRUNED, Block
from lib.data import sets
from replication.figures.curves import TASKS as UNITS
from replication.figures.panels import cut_panels
from replication.figures.style import look, names_of_panels
from replication.measure import cache as results
from replication.measure import fetching, scores
from replication.measure.experiments import blocks_of, unpruned
from replication.measure.question import Question
from replication.measure.request import Request, data_source, load_task, mapped, score
from replication.profiles import STRATEGIES, Profile, recipe
from replication.tables import grouped

KINDS = ("full", "folded")  # of linear maps, as healing.linear has them
TASKS = ("c4", "arc_easy")  # that repairs are judged by
COSTS = ("seconds", "parameters", "error", "ridge", "fit_texts", "fit_tokens")  # of a repair
NO_MAP = "no answer: no FFN before the cut that it can be folded into"
NOT_REPAIRED = {"unpruned", "plain cut"}
LOOKS = {  # of each repair
    "unpruned": {"color": "black", "marker": "*", "ls": "--"},
    "plain cut": look("plain cut") | {"ls": ":"},
    "LoRA": look("LoRA"),
    "full map": look("full map"),
    "folded map": look("folded map") | {"mfc": "white"},
}
ROWS = {"c4": "C4 loss (nats)", "arc_easy": UNITS["arc_easy"]}


def linear_maps(name: str, distances, profile: Profile) -> list[Request]:
    """Return the plain cut, healed, and with linear maps in its place: both strategies, three
    depths, of the models of the ablations.

    Column repair.
    """
    if name not in profile.ablation_models:
        return []
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


def _three_sizes(name: str, distances, profile: Profile) -> list[int]:
    """Return the first, middle and last number of layers dropped of those at which healings are
    made."""
    sizes = profile.healed_sizes(distances.num_layers, name)
    return sorted({sizes[0], sizes[len(sizes) // 2], sizes[-1]})


# ---- measuring ------------------------------------------------------------------------------


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return the scores of repairs as rows, each with what it took.

    The columns of `scores.table`, and repair, seconds (of fitting, or of all steps of a healing;
    not of loading the model). Of a map also parameters (numbers that were fitted), error
    (on calibration texts held out: what it leaves of the squared change; 1 for the plain cut), its
    ridge, and the texts and tokens that it was fitted on (fit_texts, fit_tokens). In the
    recorded run seconds are those that benchmarks/repairs.py timed side by side, NaN elsewhere.
    """
    rows = []
    for request, result in zip(requests, fetching.fetch(requests), strict=True):
        recorded = {name: result[0][name] for name in COSTS if name in result[0]}
        rows.append(scores.row(request, result) | cost(request) | recorded)
    return pd.DataFrame(rows, columns=None if rows else scores.NO_ROWS)


def cost(request: Request) -> dict:
    """Return COSTS of a repair, NaN where they are not known."""
    unknown = dict.fromkeys(COSTS, float("nan"))
    if "map" in request.params:
        costs = {row["map"]: row for row in _stored(request.maps)}
        cost = costs.get(request.params["map"], {})
        return unknown | {name: cost[name] for name in COSTS if name in cost}
    if request.recipe is None:
        return unknown | {"seconds": 0.0, "parameters": 0}
    healing = _stored(request.healing)
    return unknown | ({"seconds": healing[0]["took"]} if healing else {})


def _stored(request: Request) -> list[dict]:
    (keyed,) = fetching.keyed_by_machine([request])
    return results.load(keyed.kind, keyed.params) or []


def measure_mapped(missing: Sequence[Request]) -> None:
    """Fit the maps whose scores are missing, and store their scores; a model and task at a time."""
    for of_model in grouped(missing, lambda request: request.params["model"]).values():
        model, tokenizer = fetching.loaded(of_model[0].params)
        maps = fit(model, tokenizer, of_model)
        for requests in grouped(of_model, lambda request: request.params["task"]).values():
            _score(model, tokenizer, requests, maps)


def fit(model, tokenizer, requests: Sequence[Request]) -> dict[Block, dict[str, Block]]:
    """Return what stands in the place of each block, by block and the map's name.

    Linear maps (`linear.Mapped`), all fitted in one pass; "none": the block itself. What the maps
    took is stored.
    """
    from lib.healing import linear
    from lib.similarity import calibration_batches

    params = requests[0].params
    count, source = params["map_sequences"], data_source(params["healing_data"][0])
    texts = sets.healing_texts(source, count)[:count]  # C4's first
    max_tokens, batch_tokens = params["map_tokens"], params["map_batch_tokens"]
    batches = list(calibration_batches(texts, tokenizer, max_tokens, batch_tokens))
    lengths = [int(batch["attention_mask"].sum()) for batch in batches]
    read = {"fit_texts": len(texts), "fit_tokens": sum(lengths)}

    with_map = {request.block: request for request in requests if request.params["map"] != "none"}
    kinds = {request.params["map"] for request in requests} - {"none"}
    fitted = linear.fitted_all(model, list(with_map), kinds, batches) if with_map else {}
    in_place = {request.block: {"none": request.block} for request in requests}
    for block, of_block in fitted.items():
        in_place[block] |= {kind: fit for kind, (fit, _) in of_block.items()}
        costs = [{"map": kind} | cost | read for kind, (_, cost) in of_block.items()]
        seconds = sum(cost["seconds"] for cost in costs)
        # one result for all maps of the block: they are fitted in one pass, which each needs
        (keyed,) = fetching.keyed_by_machine([with_map[block].maps])
        results.save(keyed.kind, keyed.params, costs, seconds)
    return in_place


def _score(model, tokenizer, requests: Sequence[Request], maps: dict) -> None:
    """Sweep one task over all blocks with a map in their place, and store a result each."""
    from lib.healing import linear
    from lib.sweep import sweep

    request_of = {}
    for request in requests:
        block = maps[request.block].get(request.params["map"])
        if block is None:
            results.save(request.kind, request.params, [{}], 0, NO_MAP)
        else:
            request_of[block] = request
    task = load_task(requests[0].params)
    batch_tokens = requests[0].params["batch_tokens"]
    with linear.reading_ffn(model, request_of):
        swept = sweep(model, tokenizer, list(request_of), [task], batch_tokens).to_dict("records")
    for block, row in zip(dict.fromkeys([UNPRUNED, *request_of]), swept, strict=True):
        if block in request_of:
            request = request_of[block]
            scored = scores.row_of(model, tokenizer, task, row, request.params)
            results.save(request.kind, request.params, [scored], 0)


# ---- the figure -----------------------------------------------------------------------------


def figure_repair(scores: pd.DataFrame) -> Figure:
    """Draw what each repair gives back after each cut: the C4 loss, and accuracy on ARC-Easy.

    scores: of `table`.
    """
    models = names_of_panels(scores.model)
    columns = models + "\n" + scores.strategy
    is_whole = scores.block_size == 0
    is_repaired = ~scores.repair.isin(NOT_REPAIRED) & scores.value.notna()
    is_shown = is_whole | columns.isin(columns[is_repaired])
    drawn = scores.assign(
        row=scores.task.map(ROWS), column=columns.where(~is_whole), line=scores.repair
    )
    return cut_panels(drawn[is_shown], LOOKS, scores)


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "14_repair",
    experiments=(linear_maps,),
    kinds={"repair": measure_mapped},
    tables={"linear_maps": table},
    figures={"figure_repair": "what healing and linear maps repair of the loss and of ARC-Easy"},
)
