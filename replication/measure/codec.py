"""How a score's examples are stored: JSON of whole numbers and runs."""

from itertools import groupby

import numpy as np

NATS = 1000  # choices are stored as whole numbers of thousandths of a nat
DIGITS = 6  # decimals of stored values of examples


def packed(values: np.ndarray, weights: np.ndarray, loglikelihoods, answers) -> dict:
    """Return the examples of a score as a result keeps them, small.

    examples: (n,), their values. weights: runs [weight, how often]. choices: for each question
    the negative log-likelihood of each choice in thousandths of a nat; answers: the right ones.
    """
    small = {
        "examples": [_plain(round(value, DIGITS)) for value in values.tolist()],
        "weights": [[_plain(weight), len([*run])] for weight, run in groupby(weights.tolist())],
    }
    if loglikelihoods is not None:
        small["choices"] = [np.rint(-NATS * v).astype(int).tolist() for v in loglikelihoods]
        small["answers"] = [int(answer) for answer in answers]
    return small


def _plain(value: float) -> float | int:
    """A whole number without its .0."""
    return int(value) if value.is_integer() else float(value)


def examples_of(values: dict) -> tuple:
    """Return a stored score's examples: values, weights, log-likelihoods of the choices, answers.

    The last two are None where there are no choices.
    """
    weights = np.repeat(*zip(*values["weights"], strict=True))
    choices = values.get("choices") and [np.array(c) / -NATS for c in values["choices"]]
    examples = np.array(values["examples"], float)
    return examples, np.array(weights, float), choices, values.get("answers")
