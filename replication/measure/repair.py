"""Repairs of a cut: linear maps without training, and healings, each with what it took.

A map is fitted on texts to heal on, never on those that judge it. Its numbers stay in memory; what
is stored are its scores, and once for all maps of a block what each took.
"""

from collections.abc import Sequence

import pandas as pd

from lib import evaluation
from lib.data import sets
from lib.healing import linear
from lib.models import loading, registry
from lib.similarity import calibration_batches
from lib.sweep import sweep
from replication import results
from replication.measure import fetching, scores, studies
from replication.measure.wanted import Wanted, grouped
from replication.profiles import Profile

NO_MAP = "no answer: no FFN before the cut that it can be folded into"


def maps(distances: scores.Maps, profile: Profile) -> pd.DataFrame:
    """The scores of `studies.maps`: the plain cut, healed, and with linear maps in its place.

    The columns of `scores.healed`, and repair, seconds (of fitting, or of all steps of a healing;
    not of loading the model), parameters (numbers that were trained or fitted), error (of a map, on
    calibration texts held out: what it leaves of the squared change; 1 for the plain cut).
    """
    return table([w for model in distances.items() for w in studies.maps(*model, profile)])


def healings(distances: scores.Maps, profile: Profile) -> pd.DataFrame:
    """The scores of `studies.healings`, repairs of the similar block, in the columns of `maps`."""
    return table([w for model in distances.items() for w in studies.healings(*model, profile)])


# ---- ask, fetch, measure -------------------------------------------------------------------


def table(wanted: Sequence[Wanted]) -> pd.DataFrame:
    """The scores of repairs as rows, each with what it took; those missing are measured first."""
    ours, others = ([w for w in wanted if w.kind == kind] for kind in ("repair", "scores"))
    records = dict(zip(map(id, others), scores.fetch(others), strict=True))
    records |= dict(zip(map(id, ours), fetching.fetched(ours, _measure), strict=True))
    return pd.DataFrame([scores.row(w, records[id(w)]) | _took(w) for w in wanted])


def _took(wanted: Wanted) -> dict:
    """Seconds and parameters of a repair, as far as they are known."""
    told = {"seconds": 0.0, "parameters": 0, "error": float("nan")}
    if wanted.kind == "repair":
        record, unknown = _stored(wanted.maps), dict.fromkeys(told, float("nan"))
        return unknown | (record["values"].get(wanted.params["map"], {}) if record else {})
    if recipe := wanted.recipe:
        record, shape = _stored(wanted.healing), registry.shape(wanted.params["model"])
        layers = shape.num_layers - wanted.block.size - recipe.first_layer if shape else 0
        told["parameters"] = shape.lora(recipe.rank, layers) if shape else float("nan")
        told["seconds"] = record["seconds"] if record else float("nan")
    return told


def _stored(wanted: Wanted) -> dict | None:
    (asked,) = fetching.here([wanted])
    return results.load(asked.kind, asked.params)


def _measure(missing: Sequence[Wanted]) -> None:
    """Fit the maps whose scores are missing, and store their scores; a model and task at a time."""
    for of_model in grouped(missing, lambda w: w.params["model"]).values():
        weights = (of_model[0].params[key] for key in ("model", "quantization", "dtype"))
        model, tokenizer = loading.loaded(*weights)
        mapped = {}
        for block, asked in grouped(of_model, lambda w: w.block).items():
            names = dict.fromkeys(w.params["map"] for w in asked)
            found = fit(model, tokenizer, asked[0], names)
            mapped |= {(block, name): found.get(name) for name in names}
        for asked in grouped(of_model, lambda w: w.params["task"]).values():
            _score(model, tokenizer, asked, mapped)


def fit(model, tokenizer, wanted: Wanted, names: Sequence[str]) -> dict[str, linear.Mapped]:
    """The maps `names` of the block of a score; what they took is stored, if it is not yet."""
    params, count = wanted.params, wanted.params["map_sequences"]
    texts = sets.healing_texts(sets.source(params["healing_data"][0]), count)[:count]
    lengths = params["map_tokens"], params["map_batch_tokens"]
    batches = calibration_batches(texts, tokenizer, *lengths)
    found = linear.fitted(model, wanted.block, names, batches)
    record, (asked,) = _stored(wanted.maps), fetching.here([wanted.maps])
    took = {name: told for name, (_, told) in found.items()} | (record["values"] if record else {})
    results.save(asked.kind, asked.params, took, sum(told["seconds"] for told in took.values()))
    return {name: block for name, (block, _) in found.items()}


def _score(model, tokenizer, asked: Sequence[Wanted], mapped: dict) -> None:
    """Sweep one task over all blocks with a map in their place, and store a result each."""
    wanted = {mapped[w.block, w.params["map"]]: w for w in asked}
    for w in asked:
        if mapped[w.block, w.params["map"]] is None:
            results.save("repair", w.params, {}, 0, NO_MAP)
    wanted.pop(None, None)
    task, tokens = evaluation.task(asked[0].params), asked[0].params["batch_tokens"]
    with linear.reading_ffn(model, wanted):
        found = sweep(model, tokenizer, list(wanted), [task], tokens).to_dict("records")
    for w, score in zip(wanted.values(), found[1:], strict=True):
        values = scores.values_of(model, tokenizer, task, score, w.params)
        results.save("repair", w.params, values, 0)
