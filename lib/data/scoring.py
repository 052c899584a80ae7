"""From log-probabilities, or a text that was written, to one number an example, and its weight."""

import re

import numpy as np


def loglikelihoods(outputs: list[np.ndarray]) -> np.ndarray:
    """The log-likelihood of each choice in nats: tokens of one position, or a row a choice."""
    if len(outputs) == 1:
        return np.array(outputs[0], float)
    return np.array([logprobs.sum() for logprobs in outputs], float)


def loss(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Mean negative log-likelihood of the tokens of a text that count; weighted by their number.

    A document that is there twice counts once, with twice its weight.
    """
    logprobs = np.concatenate(outputs)  # of a chat the answers, a row each
    weight = len(logprobs) * example.get("copies", 1)
    loss = float(-logprobs.mean()) if len(logprobs) else 0.0
    return loss, weight


def bits_per_byte(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Negative log2-likelihood of the one choice over its bytes; weighted by its bytes."""
    length = len(example["choices"][0].encode())
    return float(-outputs[0].sum() / np.log(2) / length), length


def exact_match(example: dict, outputs: list[str]) -> tuple[float, float]:
    """1 if the first "#### number" of the text is that of the gold solution (strict-match)."""
    written, gold = _number(outputs[0]), _number(example["answer"])
    return float(written is not None and written == gold), 1


def _number(text: str) -> str | None:
    """Return the first number after "####" without commas and a full stop; None without any."""
    match = re.search(r"#### (-?[0-9.,]+)", text)
    return match and match[1].replace(",", "").removesuffix(".")


def accuracy_with_ties(compared: np.ndarray, answer: int) -> float:
    """1 if the right choice is the likeliest, 1/k if it is one of k that are exactly equal."""
    best = np.asarray(compared) == np.max(compared)
    return float(best[answer] / best.sum())
