"""What a model answered, beyond how much of it was right; and what it scores without reading.

A score keeps the log-likelihood of every choice of every question. A model that gives one letter
to everything is seen by the share of its commonest answer, one that cannot tell by its margin.
The floor of a task is what the best answer scores that does not read the question.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

SIGNAL = 4  # standard errors above its floor that an unpruned score needs to have something to lose
LOSSES = ("c4", "gsm8k_bpb")  # tasks where less is better
NATS = 1000  # choices are stored as whole numbers of thousandths of a nat
DIGITS = 6  # decimals of stored values of examples
TOLD = ("commonest", "ties", "margin", "bits_per_byte")  # columns of a score


def credit(compared: np.ndarray, answer: int) -> float:
    """1 if the right choice is the likeliest, 1/k if it is one of k that are exactly equal."""
    best = np.asarray(compared) == np.max(compared)
    return float(best[answer] / best.sum())


def told(
    likelihoods: Sequence[np.ndarray],
    compared: Sequence[np.ndarray],
    examples: Sequence[dict],
    weights: np.ndarray,
) -> dict:
    """What the answers to multiple-choice questions were like: the columns TOLD of a score.

    likelihoods: of each question the log-likelihood of each choice, compared: what decides among
    them. commonest: the share of the place (such as the letter) that is chosen most. ties: how many
    questions have several best choices. margin: the right choice minus the best wrong one, mean,
    in nats. bits_per_byte: bits of the right choice over its bytes without the space before it, so
    of a letter simply its bits. Shares and means have the weights of the score.
    """
    share, chosen, margins, ties = weights / weights.sum(), {}, [], 0
    for values, part, example in zip(compared, share, examples, strict=True):
        best = np.flatnonzero(values == values.max())
        ties += len(best) > 1
        for place in best:
            chosen[place] = chosen.get(place, 0) + part / len(best)
        margins.append(values[example["answer"]] - np.delete(values, example["answer"]).max())
    right = np.array([v[e["answer"]] for v, e in zip(likelihoods, examples, strict=True)])
    sizes = [len(e["choices"][e["answer"]].removeprefix(" ").encode()) for e in examples]
    commonest, margin = float(max(chosen.values(), default=np.nan)), float(share @ margins)
    bits = float(-(share @ right) / np.log(2) / (share @ sizes))
    return dict(zip(TOLD, (commonest, ties, margin, bits), strict=True))


# ---- the floor: what no reading scores -----------------------------------------------------


def blind(examples: Sequence[dict], weights: np.ndarray, completions: bool) -> dict[str, float]:
    """What answers to these very questions score that need no model.

    letter: always the choice at one place, the best. shortest: the choice of fewest characters,
    where the choices are `completions` (texts of their own).
    """
    places = range(min(len(example["choices"]) for example in examples))
    always = [[float(e["answer"] == place) for e in examples] for place in places]
    found = {"letter": max(float(np.average(a, weights=weights)) for a in always)}
    if completions:
        lengths = [-np.array([len(choice) for choice in e["choices"]]) for e in examples]
        right = [credit(n, e["answer"]) for n, e in zip(lengths, examples, strict=True)]
        found["shortest"] = float(np.average(right, weights=weights))
    return found


def floor(score) -> float:
    """What the best answer without reading scores; of an older score chance or majority."""
    given = getattr(score, "floor", np.nan)
    if pd.notna(given):
        return float(given)
    return float(np.fmax(*np.array([score.chance, score.majority], float)))


def gap(score) -> float:
    """How far a score is above its floor (a loss: below), in standard errors."""
    above = floor(score) - score.value if score.task in LOSSES else score.value - floor(score)
    with np.errstate(divide="ignore"):
        return float(np.float64(above) / score.standard_error) if above else 0.0


def no_signal(score) -> bool:
    """Whether a measured score is less than SIGNAL standard errors above a floor that is known."""
    return pd.notna(score.value) and pd.notna(floor(score)) and not gap(score) >= SIGNAL


# ---- how a score is stored -----------------------------------------------------------------


def stored(values: np.ndarray, weights: np.ndarray, likelihoods, examples) -> dict:
    """The examples of a score as a result keeps them, small: JSON of whole numbers and runs.

    examples: (n,), their values. weights: runs [weight, how often]. choices: for each question
    the negative log-likelihood of each choice in thousandths of a nat; answers: the right ones.
    """
    starts = np.flatnonzero(np.diff(weights, prepend=np.nan))
    runs = np.diff(np.append(starts, len(weights)))
    found = {
        "examples": [_plain(round(value, DIGITS)) for value in values.tolist()],
        "weights": [[_plain(weights[i]), int(n)] for i, n in zip(starts, runs, strict=True)],
    }
    if likelihoods is not None:
        found["choices"] = [np.rint(-NATS * v).astype(int).tolist() for v in likelihoods]
        found["answers"] = [example["answer"] for example in examples]
    return found


def _plain(value: float) -> float | int:
    """A whole number without its .0."""
    return int(value) if value.is_integer() else float(value)


def examples_of(values: dict) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights of a stored score's examples, also of one stored before weights ran."""
    weights = values["weights"]
    if weights and isinstance(weights[0], list):
        weights = np.repeat(*zip(*weights, strict=True))
    return np.array(values["examples"], float), np.array(weights, float)


def choices_of(values: dict) -> list[np.ndarray] | None:
    """The log-likelihoods (nats) of each question's choices in a stored score, if it has them."""
    found = values.get("choices")
    return None if found is None else [-np.array(question) / NATS for question in found]
