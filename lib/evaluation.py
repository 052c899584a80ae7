"""The paper's evaluations: tasks as rows to read, and their scores as one number per example.

A task has examples, plain dicts of text. An example becomes rows: token sequences, with the tokens
to score at their last positions. A score turns the model's log-probabilities of these tokens (or
the text it writes) into one number.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from lib.data import encoding, prompts, sets
from lib.data.encoding import Row

VARIANT = re.compile(  # of one set of questions
    r"(_(bpb|content|letters|listed|lower|other|ranking|short|symbols))+$"
)
ANSWER_STATS = ("commonest", "ties", "margin", "bits_per_byte")  # columns of a score


@dataclass(frozen=True)
class Kind:
    """The functions that build, encode and score a task."""

    build: Callable[..., list[dict]]  # its examples as text, given the source and the counts
    counts: tuple[str, ...]  # the counts that `build` takes, named as in a result's key
    rows: Callable[[dict, object], list[Row]]
    unit: str  # "accuracy", "nats" or "bits per byte"
    score: Callable[[dict, list], tuple[float, float]] | None = None  # value, weight; None: choices
    per_character: bool = False  # their log-likelihoods are compared so (acc_norm of lm-eval)
    generated: bool = False  # the model continues each row; its text is scored
    like: str = ""  # the task that tells whether a model can answer this one, if another does

    @property
    def completes(self) -> bool:
        """Whether the choices are texts of their own, not names of what stands in the prompt."""
        return self.rows is encoding.completions


def loglikelihoods(outputs: list[np.ndarray]) -> np.ndarray:
    """The log-likelihood of each choice in nats: tokens of one position, or a row a choice."""
    if len(outputs) == 1:
        return np.array(outputs[0], float)
    return np.array([logprobs.sum() for logprobs in outputs], float)


def _loss(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Mean negative log-likelihood of the text's tokens, in nats; weighted by their number.

    A document that is there twice counts once, with twice its weight.
    """
    logprobs = outputs[0]
    weight = len(logprobs) * example.get("copies", 1)
    loss = float(-logprobs.mean()) if len(logprobs) else 0.0
    return loss, weight


def bits_per_byte(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Negative log2-likelihood of the one choice over its bytes; weighted by its bytes."""
    length = len(example["choices"][0].encode())
    return float(-outputs[0].sum() / np.log(2) / length), length


def _exact_match(example: dict, outputs: list[str]) -> tuple[float, float]:
    """1 if the first "#### number" of the text is that of the gold solution (strict-match)."""
    written = re.search(r"#### (-?[0-9.,]+)", outputs[0])
    is_right = written is not None and _number(written[1]) == _number(example["answer"])
    return float(is_right), 1


def _number(answer: str) -> str:
    for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
        answer = re.sub(ignored, "", answer)
    return answer.lower()


QUESTIONS = ("questions",)
_SHOTS = ("questions", "shots")
_ORDER = ("questions", "shots", "shot_order")
_CHOICES, _TEXTS = encoding.one_token_choices, encoding.completions

_kinds = {
    "mmlu": Kind(prompts.mmlu, ("subjects", *_ORDER), _CHOICES, "accuracy"),
    "boolq": Kind(prompts.boolq, QUESTIONS, _CHOICES, "accuracy"),
    "arc_easy": Kind(prompts.arc_easy, _ORDER, _TEXTS, "accuracy"),
    "arc_easy_test": Kind(prompts.arc_easy_test, _SHOTS, _TEXTS, "accuracy"),
    "c4": Kind(prompts.c4, ("sequences", "max_tokens"), encoding.text, "nats", _loss),
    "hellaswag": Kind(prompts.hellaswag, QUESTIONS, _TEXTS, "accuracy", per_character=True),
    "gsm8k": Kind(
        prompts.gsm8k,
        (*_SHOTS, "new_tokens"),
        encoding.prompt,
        "accuracy",
        _exact_match,
        generated=True,
    ),
    "gsm8k_bpb": Kind(prompts.gsm8k, _SHOTS, _TEXTS, "bits per byte", bits_per_byte),
}
KINDS = MappingProxyType(_kinds)  # read only


def register(name: str, kind: Kind) -> None:
    """Add a task to KINDS.

    Raises ValueError if the name is taken: what it asks would then depend on the order of imports.
    """
    if name in _kinds:
        raise ValueError(f"There is a task {name!r} already: choose another name.")
    _kinds[name] = kind


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
        if self.kind.score:
            pairs = zip(self.examples, outputs, strict=True)
            scored = [self.kind.score(example, of_rows) for example, of_rows in pairs]
            values, weights = np.array(scored, dtype=float).T
            return values, weights
        compared = self._compared(self.loglikelihoods(outputs))
        return np.array(self._accuracies(compared)), self._weights

    def loglikelihoods(self, outputs: list[list]) -> list[np.ndarray] | None:
        """Of each question the log-likelihood of each choice (nats), where there are choices."""
        if self.kind.score:
            return None
        return [loglikelihoods(of_rows) for of_rows in outputs]

    def answer_stats(self, loglikelihoods: list[np.ndarray] | None) -> dict:
        """Statistics of the answers: the columns ANSWER_STATS of a score; None without choices.

        commonest: the share of the place (such as the letter) that is chosen most. ties: how many
        questions have several best choices. margin: the right choice minus the best wrong one,
        mean, in nats. bits_per_byte: bits of the right choice over its bytes without the space
        before it, so of a letter simply its bits. Shares and means have the weights of the score.
        """
        if loglikelihoods is None:
            return dict.fromkeys(ANSWER_STATS)
        shares = self._weights / self._weights.sum()
        share_of_place, margins, ties = {}, [], 0
        compared = self._compared(loglikelihoods)
        for values, share, answer in zip(compared, shares, self._answers, strict=True):
            best = np.flatnonzero(values == values.max())
            ties += len(best) > 1
            for place in best:
                share_of_place[place] = share_of_place.get(place, 0) + share / len(best)
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
        if self.kind.score:
            return {}
        num_places = max(len(example["choices"]) for example in self.examples)
        always = [
            self._mean([float(answer == place) for answer in self._answers])
            for place in range(num_places)
        ]
        scores = {"letter": max(always)}
        if self.kind.completes:
            brevity = [
                -np.array([len(choice) for choice in example["choices"]])
                for example in self.examples
            ]
            scores["shortest"] = self._mean(self._accuracies(brevity))
        return scores

    def without_question(self) -> "Task | None":
        """The task with its choices only, where they are texts: each after "Answer:"; else None."""
        if self.kind.score or not self.kind.completes:
            return None
        examples = [
            {"prompt": "Answer:", "group": "all"}
            | {name: example[name] for name in ("choices", "answer", "weight")}
            for example in self.examples
        ]
        return replace(self, examples=tuple(examples))

    def _compared(self, loglikelihoods: list[np.ndarray]) -> list[np.ndarray]:
        """The numbers compared between choices: log-likelihoods, or these per character."""
        if not self.kind.per_character:
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
        if self.kind.unit == "nats":
            return float(np.log(vocab_size))
        if self.kind.generated:
            return 0.0
        if self.kind.unit == "bits per byte":
            return None
        return self._mean([1 / len(example["choices"]) for example in self.examples])

    @property
    def majority(self) -> float | None:
        """The score of always giving the commonest answer, where answers mean the same (BoolQ)."""
        return self.baselines()["letter"] if self.name == "boolq" else None


def question_set(name: str) -> str:
    """The set that a task's questions are of: mmlu_content asks those of mmlu."""
    return VARIANT.sub("", name)


def task(name: str, source: str = "wheels", **counts) -> Task:
    """The task `name`, a key of KINDS, with as many examples as `counts` says.

    source: "wheels", or "hub" for the paper's data sets. Raises ValueError for a task that is not
    known, TypeError for a count that the task does not take, or that is missing.
    """
    kind = _kind(name)
    wrong = [count for count in kind.counts if count not in counts]
    wrong += [count for count in counts if count not in kind.counts]
    if wrong:
        raise TypeError(
            f"Task {name!r} takes the counts {', '.join(kind.counts)}; "
            f"missing or unknown: {', '.join(wrong)}."
        )
    return Task(name, tuple(kind.build(source, **counts)))


def task_of(params: dict) -> Task:
    """The task of a result's parameters, which hold its name, its data and its counts."""
    kind = _kind(params["task"])
    counts = {count: params[count] for count in kind.counts if count in params}
    return task(params["task"], sets.source(params), **counts)


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(KINDS)}.")
    return KINDS[name]


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error (of a ratio estimator; for equal weights the usual one)."""
    share = weights / weights.sum()
    mean = float(share @ values)
    n = len(values)
    if n < 2:
        return mean, float(np.nan)
    variance = n / (n - 1) * (share**2 @ (values - mean) ** 2)
    return mean, float(np.sqrt(variance))


def accuracy_with_ties(compared: np.ndarray, answer: int) -> float:
    """1 if the right choice is the likeliest, 1/k if it is one of k that are exactly equal."""
    best = np.asarray(compared) == np.max(compared)
    return float(best[answer] / best.sum())
