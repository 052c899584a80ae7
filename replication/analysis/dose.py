"""Dose and response: what more tokens of healing do to the gap between the two strategies."""

import numpy as np
import pandas as pd

from replication.analysis.bootstrap import ci_columns, resampled

PAPER_TOKENS = 5_000 * 16 * 2048  # of a healing


def gap_left(doses: pd.DataFrame) -> pd.DataFrame:
    """What is left of the loss of simple pruning above similarity's after healing, by tokens.

    gap: nats, paired on texts, with its 95 % interval. share: of the gap of the cuts that are not
    healed, their losses at most ln V: beyond that a model is not more ignorant, only surer.
    """
    rows, c4 = [], doses[(doses.task == "c4") & (doses.block_size > 0) & doses.value.notna()]
    for (model, size, tokens), both in c4.groupby(["model", "block_size", "tokens"]):
        of = both.drop_duplicates("strategy").set_index("strategy")
        if {"similarity", "simple"} <= set(of.index):
            pair = np.stack([of.examples["similarity"], of.examples["simple"]])
            losses = resampled(pair, np.asarray(of.weights.iloc[0]), "c4")
            gaps = np.diff(np.minimum(losses, of.chance.iloc[0]))[:, 0]
            told = {"model": model, "block_size": size, "tokens": tokens}
            rows.append(told | ci_columns(gaps, "gap"))
    found = pd.DataFrame(rows, columns=["model", "block_size", "tokens", "gap", "low", "high"])
    cut = ["model", "block_size"]
    at_first = found[found.tokens == 0].set_index(cut).gap
    whole = at_first.reindex(pd.MultiIndex.from_frame(found[cut])).to_numpy()
    whole = np.where(whole > 0, whole, np.nan)  # simple pruning may be the better cut
    return found.assign(
        share=found.gap / whole, share_low=found.low / whole, share_high=found.high / whole
    )
