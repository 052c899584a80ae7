"""Which criterion finds the harmless block: each chooses on half of the texts, the others judge.

damages: the table of damage.measure; states: of states.measure; removed: of greedy.measure.
"""

import numpy as np
import pandas as pd

from lib.analysis.bootstrap import columns, resampled
from lib.blocks import Block

STATES = ("last token", "all tokens", "block influence")
BEST = "damage map"
SPARED = "paper, sink kept"  # the most similar block without the sink layer
HALVES = (0, 1)


def head_to_head(damages: pd.DataFrame, states: pd.DataFrame, removed: pd.DataFrame, maps: dict):
    """The damage of each criterion's choice of every size up to half of the layers.

    One row per model, criterion, source (of the texts that the criterion reads) and block_size;
    SPARED has none where every block of the size holds the sink layer.
    starts: chosen by either half of the texts. value, low, high: damage on the texts that did not
    choose, nats a token, with its 95 % interval. excess, excess_low, excess_high: what it is above
    that of the block that the damage map itself chooses. rank: 1 plus the number of blocks of that
    size that hurt less, mean of both halves; of: how many blocks there are. median, first_quartile,
    third_quartile: of the damage of all blocks of the size. examples: the damage of each text.
    """
    rows = []
    for model, damage in damages.groupby("model", sort=False):
        mine = states[states.model == model]
        read = mine[mine.criterion.isin(STATES)]
        tables = {(BEST, "c4"): damage} | dict(list(read.groupby(["criterion", "source"])))
        chosen = {told: _chosen(table) for told, table in tables.items()}
        paper, layers = maps[model], maps[model].num_layers
        path = removed[removed.model == model].set_index(["half", "block_size"]).examples
        sink = sink_layer(mine)
        for size, of_size in damage[damage.block_size <= layers // 2].groupby("block_size"):
            picks = {told: starts[size] for told, starts in chosen.items()}
            texts = f"c4, {paper.num_sequences} texts"
            picks["paper", texts] = [paper.best_start(size)] * 2
            if spared := [l for l in of_size.block_start if not l <= sink < l + size]:
                picks[SPARED, texts] = [min(spared, key=lambda l: paper.of(Block(l, size)))] * 2
            picks["simple", "none"] = [layers - 1 - size] * 2
            rises = np.stack(of_size.examples)
            pairs = {told: rises[starts] for told, starts in picks.items()}
            if (0, size) in path:
                pairs["greedy", "c4"] = np.stack([path[half, size] for half in HALVES])
            tokens = np.asarray(of_size.weights.iloc[0])
            for (criterion, source), row in _judged(rises, tokens, pairs).items():
                told = {"model": model, "criterion": criterion, "source": source}
                told |= {"block_size": size, "starts": picks.get((criterion, source))}
                rows.append(told | row | {"n": len(tokens), "weights": tokens})
    return pd.DataFrame(rows)


def sink_layer(states: pd.DataFrame) -> int:
    """The layer after the first that changes the first token most: it makes the attention sink."""
    first = states[(states.criterion == "update, first token") & (states.block_start > 0)]
    return int(first.groupby("block_start").value.mean().idxmax())


def _chosen(table: pd.DataFrame) -> dict[int, list[int]]:
    """The start of least value of each size, by either half of the texts."""
    found = {}
    for size, rows in table.groupby("block_size"):
        values, weights = np.stack(rows.examples), np.asarray(rows.weights.iloc[0])
        found[size] = [int((values[:, h::2] @ weights[h::2]).argmin()) for h in HALVES]
    return found


def _judged(rises: np.ndarray, tokens: np.ndarray, pairs: dict) -> dict[tuple, dict]:
    """Rows of `head_to_head`. rises: of all blocks (starts, n); pairs: (2, n), chosen by half."""
    examples, ranks = {}, {}
    for told, pair in pairs.items():
        examples[told], ranks[told] = np.empty(len(tokens)), []
        for half in HALVES:
            other = slice(1 - half, None, 2)
            examples[told][other] = pair[half, other]
            less = rises[:, other] @ tokens[other] < pair[half, other] @ tokens[other] - 1e-9
            ranks[told].append(1 + less.sum())
    drawn = resampled(np.stack([*examples.values(), *rises]), tokens)
    values, every = drawn[:, : len(pairs)], drawn[:, len(pairs) :]
    first, median, third = np.quantile(every[0], [0.25, 0.5, 0.75])
    best, found = values[:, list(pairs).index((BEST, "c4"))], {}
    spread = {"median": median, "first_quartile": first, "third_quartile": third}
    for told, of_told in zip(pairs, values.T, strict=True):
        found[told] = columns(of_told) | columns(of_told - best, "excess", "excess_")
        found[told] |= {"rank": float(np.mean(ranks[told])), "of": len(rises)} | spread
        found[told] |= {"examples": examples[told]}
    return found


def summary(judged: pd.DataFrame) -> pd.DataFrame:
    """One line a model, criterion and source, over the sizes of `head_to_head`.

    best_three: at how many sizes its block is among the three of least damage; as_a_random_start:
    at how many it is no better than the median block. excess: the mean over sizes, in nats.
    """
    rows = []
    best = judged[judged.criterion == BEST].set_index(["model", "block_size"]).examples
    for told, of in judged.groupby(["model", "criterion", "source"], sort=False):
        apart = [row.examples - best[row.model, row.block_size] for row in of.itertuples()]
        drawn = resampled(np.mean(apart, axis=0)[None], of.weights.iloc[0])[:, 0]
        row = dict(zip(("model", "criterion", "source"), told, strict=True)) | {"sizes": len(of)}
        row |= {"best_three": (of["rank"] <= 3).sum()}
        row |= {"as_a_random_start": (of.value >= of["median"]).sum()}
        rows.append(row | columns(drawn, "excess", "excess_") | {"n": of.n.iloc[0]})
    return pd.DataFrame(rows)


def grid(judged: pd.DataFrame, cell: str) -> pd.DataFrame:
    """Sizes by criteria; each cell tells a row of `head_to_head` by its columns, as "{rank}"."""
    told = [cell.format(**row) for row in judged.to_dict("records")]
    places = {"index": ["model", "block_size"], "columns": ["criterion", "source"]}
    return judged.assign(told=told).pivot(**places, values="told").fillna("")


def thirds(damages: pd.DataFrame) -> pd.DataFrame:
    """Is skipping a layer cheap in the middle? Mean damage of a layer of each third of the model.

    One row per model, left_out (0, 1 or 2: that many of the last layers do not count) and third.
    value, low, high: nats a token, with 95 % intervals; above_middle: minus that of the middle.
    """
    rows = []
    for model, damage in damages[damages.block_size == 1].groupby("model", sort=False):
        rises, tokens = np.stack(damage.examples), np.asarray(damage.weights.iloc[0])
        ends = np.arange(4) * len(rises) // 3
        for left_out in (0, 1, 2):
            stops = (*ends[1:3], ends[3] - left_out)
            means = [rises[a:b].mean(0) for a, b in zip(ends[:3], stops, strict=True)]
            drawn = resampled(np.stack(means), tokens)
            for i, third in enumerate(("first", "middle", "last")):
                told = {"model": model, "left_out": left_out, "third": third}
                above = drawn[:, i] - drawn[:, 1], "above_middle", "above_middle_"
                told |= columns(drawn[:, i]) | columns(*above)
                rows.append(told | {"n": len(tokens)})
    return pd.DataFrame(rows)
