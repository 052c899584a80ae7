"""The paper's evaluations: tasks as rows to read, and their scores as one number an example.

A task has examples; an example becomes rows (token sequences with the tokens asked for at their
last positions); a score turns the log-probabilities of an example's rows into one number.
"""

from dataclasses import dataclass, replace
from inspect import signature

import numpy as np

from lib import answers, data
from lib.tasks import KINDS, Kind, Row, likelihoods

__all__ = ["KINDS", "Row", "Task", "task", "weighted_mean"]


@dataclass(frozen=True)
class Task:
    """The examples of one data set, of the kind `name` (a key of KINDS)."""

    name: str
    examples: tuple[dict, ...]

    def rows(self, tokenizer) -> list[list[Row]]:
        """The rows of each example."""
        return [self.kind.rows(example, tokenizer) for example in self.examples]

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    def scores(self, outputs: list[list]) -> tuple[np.ndarray, np.ndarray]:
        """Value and weight of each example, from the log-probabilities (or texts) of its rows.

        The weights make the mean over examples the mean over MMLU's subjects, or C4's tokens.
        """
        if self.kind.compared:
            compared = self._compared(self.likelihoods(outputs))
            pairs = zip(compared, self.examples, strict=True)
            return np.array([answers.credit(c, e["answer"]) for c, e in pairs]), self._weights
        pairs = [self.kind.score(*pair) for pair in zip(self.examples, outputs, strict=True)]
        values, weights = np.array(pairs, dtype=float).T
        return values, weights

    def likelihoods(self, outputs: list[list]) -> list[np.ndarray] | None:
        """Of each question the log-likelihood of each choice (nats), where there are choices."""
        return [likelihoods(found) for found in outputs] if self.kind.compared else None

    def told(self, found: list[np.ndarray] | None) -> dict:
        """What the answers were like (`answers.told`), from `likelihoods`; without choices None."""
        if found is None:
            return dict.fromkeys(answers.TOLD)
        return answers.told(found, self._compared(found), self.examples, self._weights)

    def blind(self) -> dict[str, float]:
        """What guessing and the answers without a model score (`answers.blind`)."""
        if not self.kind.compared:
            return {}
        return answers.blind(self.examples, self._weights, self.kind.completes)

    def unasked(self) -> "Task | None":
        """The same choices without the question, where they are texts: each after "Answer:"."""
        if not (self.kind.compared and self.kind.completes):
            return None
        bare = {"prompt": "Answer:", "group": "all"}
        return replace(self, examples=tuple(example | bare for example in self.examples))

    def _compared(self, found: list[np.ndarray]) -> list[np.ndarray]:
        pairs = zip(self.examples, found, strict=True)
        return [self.kind.compared(example, values) for example, values in pairs]

    @property
    def _weights(self) -> np.ndarray:
        return np.array([example["weight"] for example in self.examples], float)

    def chance(self, vocab_size: int) -> float | None:
        """What guessing scores: the mean of one in the number of choices; ln V for the loss.

        Nothing where the model writes its answer; None in bits per byte.
        """
        if self.kind.unit == "nats":
            return float(np.log(vocab_size))
        if self.kind.generated:
            return 0.0
        if self.kind.unit == "bits per byte":
            return None
        guesses = [1 / len(example["choices"]) for example in self.examples]
        return float(np.average(guesses, weights=[e["weight"] for e in self.examples]))

    @property
    def majority(self) -> float | None:
        """What always giving the commonest answer scores, where answers mean the same (BoolQ)."""
        if self.name != "boolq":
            return None
        return float(np.bincount([e["answer"] for e in self.examples]).max() / len(self.examples))


def task(params: dict) -> Task:
    """The task that a result's parameters ask for: its name, where its data is, its counts.

    Raises ValueError for a task that is not known.
    """
    name = params["task"]
    if name not in KINDS:
        raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(KINDS)}.")
    build = KINDS[name].build
    counts = {key: params[key] for key in signature(build).parameters if key in params}
    return Task(name, tuple(build(data.source(params), **counts)))


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error (of a ratio estimator; for equal weights the usual one)."""
    share = weights / weights.sum()
    mean = float(share @ values)
    n = len(values)
    spread = n / (n - 1) * (share**2 @ (values - mean) ** 2) if n > 1 else np.nan
    return mean, float(np.sqrt(spread))
