"""Which criterion finds the harmless block: each chooses on half of the texts, the others judge.

damages: the table of damage.measure; states: of states.measure.
"""

import numpy as np
import pandas as pd

from lib.blocks import Block
from replication.analysis.bootstrap import ci_columns, resampled

STATES = ("last token", "all tokens", "block influence")
BEST = "damage map"
SPARED = "paper, sink kept"  # the most similar block without the sink layer
HALVES = (0, 1)


def head_to_head(damages: pd.DataFrame, states: pd.DataFrame, maps: dict) -> pd.DataFrame:
    """The damage of each criterion's choice of every size up to half of the layers.

    One row per model, criterion, source (the texts that the criterion reads) and block_size; SPARED
    has none where every block of the size holds the sink layer.
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
        tables = {BEST: damage} | dict(list(read.groupby("criterion")))
        chosen = {criterion: _chosen(table) for criterion, table in tables.items()}
        paper, layers = maps[model], maps[model].num_layers
        of_the_map = f"c4, {paper.num_sequences} texts"
        sources = {"paper": of_the_map, SPARED: of_the_map, "simple": "none"}
        sink = sink_layer(mine)
        for size, of_size in damage[damage.block_size <= layers // 2].groupby("block_size"):
            starts = {criterion: by_size[size] for criterion, by_size in chosen.items()}
            starts["paper"] = [paper.best_start(size)] * 2
            if spared := [l for l in of_size.block_start if not l <= sink < l + size]:
                starts[SPARED] = [min(spared, key=lambda l: paper.of(Block(l, size)))] * 2
            starts["simple"] = [layers - 1 - size] * 2
            rises = np.stack(of_size.examples)
            tokens = np.asarray(of_size.weights.iloc[0])
            for criterion, judged in _judged(rises, tokens, starts).items():
                row = {"model": model, "criterion": criterion}
                row |= {"source": sources.get(criterion, "c4"), "block_size": size}
                row |= {"starts": starts[criterion]} | judged
                rows.append(row | {"n": len(tokens), "weights": tokens})
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


def _judged(rises: np.ndarray, tokens: np.ndarray, starts: dict) -> dict[str, dict]:
    """Rows of `head_to_head`. rises: of all blocks (starts, n); starts: two, chosen by half."""
    examples, ranks = {}, {}
    for criterion, of_halves in starts.items():
        examples[criterion], ranks[criterion] = np.empty(len(tokens)), []
        for half, start in zip(HALVES, of_halves, strict=True):
            other = slice(1 - half, None, 2)
            examples[criterion][other] = rises[start, other]
            damages = rises[:, other] @ tokens[other]
            ranks[criterion].append(1 + (damages < damages[start] - 1e-9).sum())
    drawn = resampled(np.stack([*examples.values(), *rises]), tokens)
    values, every = drawn[:, : len(starts)], drawn[:, len(starts) :]
    first, median, third = np.quantile(every[0], [0.25, 0.5, 0.75])
    spread = {"median": median, "first_quartile": first, "third_quartile": third}
    best, rows = values[:, list(starts).index(BEST)], {}
    for criterion, of_criterion in zip(starts, values.T, strict=True):
        row = ci_columns(of_criterion) | ci_columns(of_criterion - best, "excess", "excess_")
        row |= {"rank": float(np.mean(ranks[criterion])), "of": len(rises)} | spread
        rows[criterion] = row | {"examples": examples[criterion]}
    return rows


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
        rows.append(row | ci_columns(drawn, "excess", "excess_") | {"n": of.n.iloc[0]})
    return pd.DataFrame(rows)


def grid(judged: pd.DataFrame, cell: str) -> pd.DataFrame:
    """Sizes by criteria; each cell tells a row of `head_to_head` by its columns, as "{rank}"."""
    cells = [cell.format(**row) for row in judged.to_dict("records")]
    table = judged.assign(cell=cells)
    sizes = ["model", "block_size"]
    return table.pivot(index=sizes, columns="criterion", values="cell").fillna("")
