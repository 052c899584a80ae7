"""Which block should go? Criteria against the loss of dropping every block, and each layer alone.

Notebooks 12 and 13. Each criterion reads half of the texts and chooses a block of every size; the
damage map (the loss after dropping each block, `measure.damage`) judges on the other half.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import similarity_block, simple_block
from lib.data import sets
from lib.evaluation import weighted_mean
from replication.analysis.bootstrap import ci_columns, resampled
from replication.figures.panels import line
from replication.figures.style import (
    STYLE,
    WIDTH,
    colour,
    finished,
    label,
    name_pale,
    opacity,
    recorded_first,
)
from replication.measure import fetching
from replication.measure.damage import all_blocks
from replication.measure.question import Question
from replication.measure.request import BLOCK, Request, data_identity, data_source
from replication.profiles import Profile
from replication.tables import RECORD_PREFIX

VERSION = 2  # bumped by hand when the numbers change
TOKENS = 256  # whose states are compared at once
DIGITS = 5  # decimals of stored values
CRITERIA = {"last": "last token", "every": "all tokens", "influence": "block influence"}
BEST = "damage map"
TEXT_HALVES = (0, 1)
LAYER = {"color": colour("damage map"), "marker": "o", "ms": 4, "lw": 1}
CHANGE = r"$|x^{(l+1)} - x^{(l)}|\;/\;|x^{(l)}|$"
UPDATES = {
    "update": {"label": "all tokens but the first", "color": "black"},
    "update, first token": {"label": "first token", "color": "grey", "ls": ":"},
}


def states(name: str, distances, profile: Profile) -> list[Request]:
    """Return requests for how much every block changes the states of the damage map's texts."""
    params = {"model": name, **profile.load_kwargs, **data_identity("c4", profile.source)}
    params |= {
        "texts": "c4",
        "sequences": profile.damage_sequences,
        "max_tokens": profile.damage_tokens,
        "version": VERSION,
    }
    return [Request("states", params)]


# ---- measuring ------------------------------------------------------------------------------


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return how much every block changes the states, by three criteria, on the damage map's texts.

    One row per model, criterion and block: model, criterion, block_start, block_size, value (angles
    in half turns), n (texts), and per text the value (`examples`) and its `weights` in the mean:
    tokens, of the last token 1. The criterion "update" is of single layers: |x^(l+1) - x^(l)| /
    |x^(l)|, mean over the tokens but the first, whose state is of another size in many models;
    "update, first token" is its own. A model that was not measured has no rows.
    """
    rows = [row for result in fetching.fetch(requests) for row in result if row["status"] == "ok"]
    return pd.DataFrame(rows, columns=None if rows else ["model", "criterion", *BLOCK, "value"])


def _measured(params: dict) -> list[dict]:
    """Return the rows of a model: what `of_text` gives of each text, of every block and layer."""
    import torch  # here, since the plan reads `states` above and loads no torch

    model, tokenizer = fetching.loaded(params)
    texts = sets.c4("validation", data_source(params), params["sequences"])
    changes, tokens = [], []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=params["max_tokens"]).input_ids
        changes.append(of_text(model, torch.tensor(ids)))
        tokens.append(len(ids))
    blocks = all_blocks(len(changes[0]["last"]) - 1)
    starts = [block.start for block in blocks]
    stops = [block.stop for block in blocks]
    values = {key: [change[key][starts, stops] for change in changes] for key in CRITERIA}
    values["update"] = [change["update"][:, 1:].mean(1) for change in changes]
    values["update_first"] = [change["update"][:, 0] for change in changes]
    values = {key: np.array(of_texts, float).T for key, of_texts in values.items()}
    places = [(block.start, block.size) for block in blocks]
    return _rows(places, np.array(tokens, float), values)


def of_text(model, ids) -> dict[str, np.ndarray]:
    """Return distances and sizes of the stream, from one forward pass of a text (T token ids).

    last: d(x^(l), x^(m)) at the last token, (L+1, L+1), half turns. every: the same, mean over all
    T tokens. influence: Block Influence of ShortGPT, 1 - cos(x^(l), x^(m)), mean over tokens.
    update: |x^(l+1) - x^(l)| / |x^(l)|, (L, T), of each layer and token.
    """
    import torch

    from lib.models.decoder import residual_stream, run_decoder
    from lib.similarity import angular_distances

    states = []
    with torch.inference_mode():
        with residual_stream(model, lambda l, x: states.append(x[0].float())):
            run_decoder(model, ids[None].to(model.device))
        stream = torch.stack([x.to(model.device) for x in states])
        inputs, outputs = stream[:-1], stream[1:]  # of each layer
        update = (outputs - inputs).norm(dim=-1) / inputs.norm(dim=-1)
        by_token = stream.transpose(0, 1).split(TOKENS)
        distances = np.concatenate([angular_distances(tokens) for tokens in by_token])
    return {
        "last": distances[-1],
        "every": distances.mean(0),
        "influence": 1 - np.cos(np.pi * distances).mean(0),
        "update": update.cpu().numpy(),
    }


def _rows(blocks: list, tokens: np.ndarray, values: dict[str, np.ndarray]) -> list[dict]:
    """Return a row a criterion and block. values: of blocks (or layers), by text."""
    each_once = np.ones(len(tokens))
    layers = [(l, 1) for l in range(len(values["update"]))]
    criteria = {
        "last token": ("last", blocks, each_once),
        "all tokens": ("every", blocks, tokens),
        "block influence": ("influence", blocks, tokens),
        "update": ("update", layers, tokens - 1),
        "update, first token": ("update_first", layers, each_once),
    }
    rows = []
    for criterion, (key, of_blocks, weights) in criteria.items():
        for (start, size), of_texts in zip(of_blocks, values[key], strict=True):
            examples = of_texts.round(DIGITS)
            row = {"criterion": criterion, "block_start": start, "block_size": size}
            row |= {"value": weighted_mean(examples, weights)[0], "n": len(tokens)}
            rows.append(row | {"examples": examples, "weights": weights})
    return rows


# ---- the statistics -------------------------------------------------------------------------


def head_to_head(damages: pd.DataFrame, changes: pd.DataFrame, maps: dict) -> pd.DataFrame:
    """Return the damage of each criterion's choice of every size up to half of the layers.

    damages: the table of `damage.table`; changes: of `table`.
    One row per model, criterion and block_size. starts: chosen by either half of the texts. value:
    damage on the texts that did not choose, nats a token; examples: of each text. rank: 1 plus the
    number of blocks of that size that hurt less, mean of both halves. median: of the damage of all
    blocks of the size.
    """
    rows = []
    for model, damage in damages.groupby("model", sort=False):
        starts = _starts(damage, changes[changes.model == model], maps[model])
        small = damage[damage.block_size <= maps[model].num_layers // 2]
        for size, blocks in small.groupby("block_size"):
            for criterion, by_size in starts.items():
                row = {"model": model, "criterion": criterion, "block_size": size}
                rows.append(row | _judged(blocks, by_size[size]))
    return pd.DataFrame(rows)


def _starts(damage: pd.DataFrame, changes: pd.DataFrame, distances) -> dict[str, dict]:
    """Return where the blocks of each criterion start, by size: two starts, one by either half."""
    of_criteria = changes[changes.criterion.isin(CRITERIA.values())]
    starts = {BEST: _chosen(damage)}
    for criterion, table in of_criteria.groupby("criterion"):
        starts[criterion] = _chosen(table)
    # these two do not read the texts that judge, so both halves have the same start
    paper, simple = {}, {}
    for size in starts[BEST]:
        paper[size] = [similarity_block(distances, size).start] * 2
        simple[size] = [simple_block(distances.num_layers, size).start] * 2
    return starts | {"paper": paper, "simple": simple}


def _chosen(table: pd.DataFrame) -> dict[int, list[int]]:
    """Return the start of least value of each size, by either half of the texts."""
    starts = {}
    for size, rows in table.groupby("block_size"):
        values = np.stack(rows.examples)
        weights = np.asarray(rows.weights.iloc[0])
        sums = [values[:, half::2] @ weights[half::2] for half in TEXT_HALVES]
        starts[size] = [int(of_half.argmin()) for of_half in sums]
    return starts


def _judged(blocks: pd.DataFrame, starts: list[int]) -> dict:
    """Return the columns that `head_to_head` has of one criterion and size.

    blocks: the damage of all blocks of the size. starts: two, chosen by half.
    """
    rises = np.stack(blocks.examples)  # (starts, texts)
    tokens = np.asarray(blocks.weights.iloc[0])
    examples, ranks = np.empty(len(tokens)), []
    for half, start in zip(TEXT_HALVES, starts, strict=True):
        other = slice(1 - half, None, 2)  # the texts that did not choose
        examples[other] = rises[start, other]
        damages = rises[:, other] @ tokens[other]
        less = damages < damages[start] - 1e-9  # rounding makes no block better
        ranks.append(1 + less.sum())
    return {
        "starts": starts,
        "value": np.average(examples, weights=tokens),
        "rank": np.mean(ranks),
        "median": np.median(np.average(rises, axis=1, weights=tokens)),
        "examples": examples,
        "weights": tokens,
        "n": len(tokens),
    }


def summary(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a row a model and criterion, over the sizes of a table of `head_to_head`.

    best_three: at how many sizes its block is among the three of least damage; as_a_random_start:
    at how many it is no better than the median block. excess: the damage above that of the damage
    map's own choice, mean over sizes, in nats.
    """
    keys = ["model", "criterion"]
    best = judged[judged.criterion == BEST].set_index(["model", "block_size"]).examples
    rows = []
    for key, of_criterion in judged.groupby(keys, sort=False):
        sizes = of_criterion.itertuples()
        excesses = [row.examples - best[row.model, row.block_size] for row in sizes]
        weights = of_criterion.weights.iloc[0]
        drawn = resampled(np.mean(excesses, axis=0)[None], weights)[:, 0]
        row = dict(zip(keys, key, strict=True)) | {"sizes": len(of_criterion)}
        row |= {"best_three": (of_criterion["rank"] <= 3).sum()}
        row |= {"as_a_random_start": (of_criterion.value >= of_criterion["median"]).sum()}
        row |= ci_columns(drawn, "excess", "excess_")
        rows.append(row | {"n": of_criterion.n.iloc[0]})
    return pd.DataFrame(rows)


# ---- the figure -----------------------------------------------------------------------------


def figure_layers(damages: pd.DataFrame, changes: pd.DataFrame) -> Figure:
    """Draw a row a model: how much each layer changes the stream of the C4 texts, and the damage of
    dropping it; the record behind. Bars: 95 %.

    damages: the table of `damage.table`; changes: of `table`.
    """
    updates = changes[changes.criterion.isin(UPDATES)]
    table = pd.concat([updates, damages[damages.block_size == 1]])
    models = table.groupby(table.model.str.removeprefix(RECORD_PREFIX), sort=False)
    with plt.rc_context(STYLE):
        size = WIDTH, 1 + 2.6 * len(models)
        figure, axes = plt.subplots(len(models), 2, figsize=size, squeeze=False)
        for (left, right), (_, panel) in zip(axes, models, strict=True):
            names = []
            for name, of_model in recorded_first(panel).groupby("model", sort=False):
                names.insert(0, f"{label(name)}, {of_model.n.iloc[0]} texts")
                shade = {"alpha": opacity(name, panel)}
                name_pale(right, name, panel)
                for criterion, style in UPDATES.items():
                    update = of_model[of_model.criterion == criterion]
                    left.plot(update.block_start, update.value, marker=".", **style | shade)
                single = of_model[of_model.criterion.isna()]
                line(right, single, "block_start", "one layer dropped", **LAYER | shade)
            right.set_yscale("symlog", linthresh=0.1)
            right.yaxis.set_major_formatter("{x:g}")
            left.set(xlabel="layer $l$", ylabel=CHANGE, yscale="log")
            left.set_title("\n".join(names), loc="left")
            right.set(xlabel="layer $l$", ylabel="rise of the C4 loss (nats)")
        return finished(figure, table, legend="bars: 95 %")


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "12_which_block",
    experiments=(states,),
    kinds={"states": fetching.each(_measured)},
    tables={"states": table},
    figures={
        "figure_damage": "the loss after dropping each block, and after running it twice, also "
        "against its distance"
    },
)
ONE_LAYER = Question(
    "13_one_layer",
    experiments=(states,),
    figures={"figure_layers": "each layer's update, and the damage of dropping it"},
)
