"""Dose and response: what more tokens of healing do to a loss, and where a law says it ends.

The law is L(D) = L0 + A D^-b, for D tokens. It is fitted to all budgets but the largest, which
tests it, and extrapolated to the paper's.
"""

import numpy as np
import pandas as pd

from lib.analysis.bootstrap import columns, resampled

PAPER_TOKENS = 5_000 * 16 * 2048  # of a healing
EXPONENTS = np.linspace(0.05, 1.5, 59)
FEWEST = 4  # budgets, for three parameters to be fitted to
MISSED = 0.05  # nats; a law that misses the largest budget by more is not extrapolated
LINE = ["model", "strategy", "block_size"]


def law(doses: pd.DataFrame) -> pd.DataFrame:
    """The law of the C4 loss of each line (model, strategy, block_size), with 95 % intervals.

    doses: of experiments.dose. exponent: b. predicted: at the largest budget, from the others;
    measured: there; paper: at the paper's tokens, from all budgets, where the law has passed.
    """
    rows, healed = [], doses[(doses.task == "c4") & doses.treatment.isin(["healed", "control"])]
    for key, line in healed[healed.value.notna()].groupby(LINE, sort=False):
        line = line.sort_values("tokens")
        tokens = line.tokens.to_numpy(float)
        if len(tokens) <= FEWEST:
            continue
        losses = resampled(np.stack(line.examples), np.asarray(line.weights.iloc[0]), "c4")
        exponent, tested = fitted(tokens[:-1], losses[:, :-1], tokens[-1])
        told = {"predicted": tested, "measured": losses[:, -1]}
        passed = abs(tested[0] - losses[0, -1]) <= MISSED
        told |= {"paper": fitted(tokens, losses, PAPER_TOKENS)[1] if passed else tested * np.nan}
        row = dict(zip(LINE, key, strict=True)) | {"exponent": exponent[0], "tokens": tokens[-1]}
        for name, values in told.items():
            row |= columns(values, name, f"{name}_")
        rows.append(row | {"n": line.n.iloc[0]})
    return pd.DataFrame(rows)


def fitted(tokens: np.ndarray, losses: np.ndarray, at) -> tuple[np.ndarray, np.ndarray]:
    """The exponent of each row of losses (R, B) by least squares, and the law's value `at` D."""
    best, found = np.full(len(losses), np.inf), np.zeros((2, len(losses)))
    for b in EXPONENTS:
        design = np.stack([np.ones_like(tokens), tokens**-b])
        parts = losses @ np.linalg.pinv(design)
        rest = ((losses - parts @ design) ** 2).sum(1)
        told = np.full(len(losses), b), parts @ [1, float(at) ** -b]
        found = np.where(rest < best, told, found)
        best = np.minimum(rest, best)
    return found[0], found[1]


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
            rows.append(told | columns(gaps, "gap"))
    found = pd.DataFrame(rows, columns=["model", "block_size", "tokens", "gap", "low", "high"])
    at_first = found[found.tokens == 0].set_index(LINE[::2]).gap
    whole = at_first.reindex(pd.MultiIndex.from_frame(found[LINE[::2]])).to_numpy()
    whole = np.where(whole > 0, whole, np.nan)  # simple pruning may be the better cut
    return found.assign(
        share=found.gap / whole, share_low=found.low / whole, share_high=found.high / whole
    )
