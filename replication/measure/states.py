"""What the states of a text say of every block: the criteria that need no second forward pass."""

from collections.abc import Iterable
from functools import partial

import numpy as np
import pandas as pd
import torch

from lib.data import sets
from lib.evaluation import weighted_mean
from lib.models import loading
from lib.similarity import of_text
from replication import results
from replication.measure import fetching, studies
from replication.measure.studies import all_blocks
from replication.profiles import Profile

CRITERIA = {"last": "last token", "every": "all tokens", "influence": "block influence"}
SCALE = 100_000  # values are stored as whole numbers, times this


def measure(maps: Iterable[str], profile: Profile) -> pd.DataFrame:
    """How much every block changes the states, by three criteria, on the damage map's texts.

    One row per model, criterion and block: model, criterion, block_start, block_size, value (angles
    in half turns), n (texts), and per text the value (`examples`) and its `weights` in the mean:
    tokens, of the last token 1. The criterion "update" is of single layers: |x^(l+1) - x^(l)| /
    |x^(l)|, mean over the tokens but the first, whose state is of another size in many models;
    "update, first token" is its own.
    """
    found, _ = fetching.tried(partial(_of_model, profile=profile), maps)
    return pd.concat(found.values(), ignore_index=True)


def _of_model(name: str, profile: Profile) -> pd.DataFrame:
    """The rows of `measure` of one model."""
    (request,) = fetching.here(studies.states(name, None, profile))
    compute = partial(_values, request.params)
    values = results.load_or_compute(request.kind, request.params, compute)["values"]
    return pd.DataFrame(_rows(name, values))


def _values(params: dict) -> dict:
    """Per text, what `of_text` tells: of blocks in the order of `all_blocks`, of layers."""
    model, tokenizer = loading.loaded(*(params[key] for key in ("model", "quantization", "dtype")))
    texts = sets.c4("validation", sets.source(params), params["sequences"])
    found, tokens = [], []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=params["max_tokens"]).input_ids
        found.append(of_text(model, torch.tensor(ids)))
        tokens.append(len(ids))
    blocks = all_blocks(len(found[0]["last"]) - 1)
    starts, stops = np.array([(block.start, block.stop) for block in blocks]).T
    values = {key: [text[key][starts, stops] for text in found] for key in CRITERIA}
    values["update"] = [text["update"][:, 1:].mean(1) for text in found]
    values["update_first"] = [text["update"][:, 0] for text in found]
    stored = {
        key: np.rint(SCALE * np.array(of, float).T).astype(int).tolist()
        for key, of in values.items()
    }
    return {"blocks": [[b.start, b.size] for b in blocks], "tokens": tokens} | stored


def _rows(model: str, values: dict) -> list[dict]:
    tokens = np.array(values["tokens"], float)
    layers = [[l, 1] for l in range(len(values["update"]))]
    criteria = {name: (key, values["blocks"], tokens) for key, name in CRITERIA.items()}
    criteria["last token"] = ("last", values["blocks"], np.ones(len(tokens)))
    criteria["update"] = ("update", layers, tokens - 1)
    criteria["update, first token"] = ("update_first", layers, np.ones(len(tokens)))
    return [
        {"model": model, "criterion": name, "block_start": start, "block_size": size}
        | {"value": weighted_mean(examples, weights)[0], "n": len(tokens)}
        | {"examples": examples, "weights": weights}
        for name, (key, blocks, weights) in criteria.items()
        for (start, size), examples in zip(blocks, np.array(values[key]) / SCALE, strict=True)
    ]
