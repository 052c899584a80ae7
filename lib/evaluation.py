"""The paper's evaluations: tasks as rows to read, and their scores as one number per example.

A task has examples, plain dicts of text. An example becomes rows: token sequences, with the tokens
to score at their last positions. A score turns the model's log-probabilities of these tokens (or
the text it writes) into one number.
"""

from collections import Counter
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from .data.encoding import Row
from .data.scoring import accuracy_with_ties, loglikelihoods
from .tasks import LM_EVAL, TASK_SPECS, TaskSpec, question_set, register

__all__ = ["TASK_SPECS", "TaskSpec", "Task", "question_set", "register", "task"]  # and others
CHOICES_ONLY = ("choices", "answer", "weight", "document")  # of an example
SIGNAL = 4  # standard errors above its floor that an unpruned score needs to have something to lose
ANSWER_STATS = ("commonest", "ties", "margin", "bits_per_byte")  # columns of a score


@dataclass(frozen=True)
class Task:
    """The examples of the task `name`: a key of TASK_SPECS, or one with a row of its own."""

    name: str
    examples: tuple[dict, ...]
    own_spec: TaskSpec | None = None

    def rows(self, tokenizer) -> list[list[Row]]:
        """The rows of each example."""
        return [self.spec.rows(example, tokenizer) for example in self.examples]

    @property
    def spec(self) -> TaskSpec:
        return self.own_spec or TASK_SPECS[self.name]

    def scores(self, outputs: list[list]) -> tuple[np.ndarray, np.ndarray]:
        """Value and weight of each example, from the log-probabilities (or texts) of its rows.

        The weights make the mean over examples the mean over MMLU's subjects, or C4's tokens.
        """
        if self.spec.score:
            pairs = zip(self.examples, outputs, strict=True)
            scored = [self.spec.score(example, of_rows) for example, of_rows in pairs]
            return tuple(np.array(scored, dtype=float).T)
        loglikelihoods = self.loglikelihoods(outputs)
        if correct := self.spec.correct:
            pairs = zip(self.examples, loglikelihoods, strict=True)
            values = [correct(example, values) for example, values in pairs]
        else:
            values = self._accuracies(self._compared(loglikelihoods))
        return np.array(values), self._weights

    def loglikelihoods(self, outputs: list[list]) -> list[np.ndarray] | None:
        """Of each question the log-likelihood of each choice (nats), where there are choices."""
        if self.spec.score:
            return None
        return [loglikelihoods(of_rows) for of_rows in outputs]

    def answer_stats(self, loglikelihoods: list[np.ndarray] | None) -> dict:
        """Statistics of the answers: the columns ANSWER_STATS of a score; None without choices.

        commonest: the share of the place (such as the letter) that is chosen most. ties: how many
        questions have several best choices. margin: the right choice minus the best wrong one,
        mean, in nats (per character, if choices are compared so). bits_per_byte: bits of the right
        choice over its bytes without the space before it, so of a letter simply its bits. Shares
        and means have the weights of the score.
        """
        if loglikelihoods is None:
            return dict.fromkeys(ANSWER_STATS)
        shares = self._weights / self._weights.sum()
        share_of_place, margins, ties = Counter(), [], 0
        # what decides is compared (of HellaSwag per character); bits are of what was read, whole
        compared = self._compared(loglikelihoods)
        for values, share, answer in zip(compared, shares, self._answers, strict=True):
            # of several best choices each counts in part, as in the accuracy
            best = np.flatnonzero(values == values.max())
            ties += len(best) > 1
            for place in best:
                share_of_place[place] += share / len(best)
            margins.append(values[answer] - np.delete(values, answer).max())
        pairs = zip(loglikelihoods, self._answers, strict=True)
        right = np.array([values[answer] for values, answer in pairs])
        texts = [example["choices"][example["answer"]] for example in self.examples]
        num_bytes = [len(text.removeprefix(" ").encode()) for text in texts]
        return {
            "commonest": float(max(share_of_place.values(), default=np.nan)),
            "ties": ties,
            "margin": float(shares @ margins),
            "bits_per_byte": float(-(shares @ right) / np.log(2) / (shares @ num_bytes)),
        }

    def baselines(self) -> dict[str, float]:
        """Scores of answers to these very questions that need no model; {} without choices.

        letter: always the choice at one place, the best. shortest: the choice of fewest
        characters, where the choices are texts of their own.
        """
        if self.spec.score:
            return {}
        num_places = max(len(example["choices"]) for example in self.examples)
        always = [
            self._mean([float(answer == place) for answer in self._answers])
            for place in range(num_places)
        ]
        scores = {"letter": max(always)} if self.spec.has_places else {}
        if self.spec.completes:
            brevity = [-np.array(list(map(len, one["choices"]))) for one in self.examples]
            scores["shortest"] = self._mean(self._accuracies(brevity))
        return scores

    def without_question(self) -> "Task | None":
        """The task with its choices only, where they are texts: each after "Answer:"; else None."""
        if self.spec.score or not self.spec.completes:
            return None
        examples = [
            {"prompt": "Answer:", "group": "all"}
            | {name: example[name] for name in CHOICES_ONLY if name in example}
            for example in self.examples
        ]
        return replace(self, examples=tuple(examples))

    def _compared(self, loglikelihoods: list[np.ndarray]) -> list[np.ndarray]:
        """The numbers compared between choices: log-likelihoods, or these per character."""
        if not self.spec.per_character:
            return loglikelihoods
        per_character = []
        for values, example in zip(loglikelihoods, self.examples, strict=True):
            lengths = [len(choice) - 1 for choice in example["choices"]]  # without its space
            per_character.append(values / lengths)
        return per_character

    def _accuracies(self, compared: list[np.ndarray]) -> list[float]:
        pairs = zip(compared, self._answers, strict=True)
        return [accuracy_with_ties(values, answer) for values, answer in pairs]

    @property
    def _answers(self) -> list[int]:
        """The place of the right choice of each example."""
        return [example["answer"] for example in self.examples]

    @property
    def _weights(self) -> np.ndarray:
        return np.array([example["weight"] for example in self.examples], float)

    def _mean(self, values: list[float]) -> float:
        return float(np.average(values, weights=self._weights))

    def chance(self, vocab_size: int) -> float | None:
        """The score of guessing: the mean of one in the number of choices; ln V for the loss.

        Nothing where the model writes its answer; None in bits per byte.
        """
        if self.spec.unit == "nats":
            return float(np.log(vocab_size))
        if self.spec.generated:
            return 0.0
        if self.spec.unit == "bits per byte":
            return None
        return self._mean(
            [
                example["chance"] if "chance" in example else 1 / len(example["choices"])
                for example in self.examples
            ]
        )

    @property
    def majority(self) -> float | None:
        """The score of always giving the commonest answer, where answers mean the same (BoolQ)."""
        return self.baselines()["letter"] if self.spec.same_choices else None


def task(name: str, source: str = "wheels", **counts) -> Task:
    """The task `name`, a key of TASK_SPECS, with as many examples as `counts` says.

    source: "wheels", or "hub" for the paper's data sets. A task of lm-eval is named as in
    "lm_eval:winogrande" or "lm_eval:my/task.yaml", and its counts are those of
    `lm_eval_tasks.read_task`. Raises ValueError for a task that is not known, TypeError for a count
    that its function does not take, or that is missing.
    """
    if name.startswith(LM_EVAL):
        if not find_spec("lm_eval"):
            raise ValueError(f"{name} needs lm-eval: pip install 'lm-eval[hf]', or leave it out.")
        from . import lm_eval_tasks  # here, since only these tasks need lm-eval

        name, examples, spec_of_lm_eval = lm_eval_tasks.read_task(name, **counts)
        return Task(name, tuple(examples), spec_of_lm_eval)
    return Task(name, tuple(spec(name).build(source, **counts)))


def spec(name: str) -> TaskSpec:
    """Return the row of a task. Raises ValueError for a task that is not known."""
    if name not in TASK_SPECS:
        raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(TASK_SPECS)}.")
    return TASK_SPECS[name]


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error (of a ratio estimator; for equal weights the usual one)."""
    has_weight = weights > 0
    values, weights = values[has_weight], weights[has_weight]
    if not len(values):
        return float(np.nan), float(np.nan)
    share = weights / weights.sum()
    mean = float(share @ values)
    n = len(values)
    if n < 2:
        return mean, float(np.nan)
    variance = n / (n - 1) * (share**2 @ (values - mean) ** 2)
    return mean, float(np.sqrt(variance))
