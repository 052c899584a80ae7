"""The paper's evaluations: tasks as rows to read, and their scores as one number an example.

A task has examples, plain dicts of text; an example becomes rows (token sequences with the tokens
asked for at their last positions); a score turns what a model says to them into one number.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature

import numpy as np

from lib.data import encoding, prompts, sets
from lib.data.encoding import Row

VARIANT = re.compile(
    "_(bpb|content|letters|closed|ranking|other)$"
)  # ways to ask a set's questions
TOLD = ("commonest", "ties", "margin", "bits_per_byte")  # columns of a score


@dataclass(frozen=True)
class Kind:
    """How a task is built, encoded and scored."""

    build: Callable[..., list[dict]]  # its examples as text, given the source and the counts
    rows: Callable[[dict, object], list[Row]]
    unit: str  # "accuracy", "nats" or "bits per byte"
    score: Callable[[dict, list], tuple[float, float]] | None = None  # value, weight; None: choices
    per_character: bool = False  # their log-likelihoods are compared so (acc_norm of lm-eval)
    generated: bool = False  # the model continues each row; its text is scored

    @property
    def completes(self) -> bool:
        """Whether the choices are texts of their own, not names of what stands in the prompt."""
        return self.rows is encoding.completions


def likelihoods(outputs: list[np.ndarray]) -> np.ndarray:
    """The log-likelihood of each choice in nats: tokens of one position, or a row a choice."""
    return np.array(outputs[0] if len(outputs) == 1 else [row.sum() for row in outputs], float)


def _loss(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Mean negative log-likelihood of the text's tokens, in nats; weighted by their number.

    A document that is there twice counts once, with twice its weight.
    """
    weight = len(outputs[0]) * example.get("copies", 1)
    return (float(-outputs[0].mean()) if len(outputs[0]) else 0.0), weight


def _bits_per_byte(example: dict, outputs: list[np.ndarray]) -> tuple[float, float]:
    """Negative log2-likelihood of the one choice over its bytes; weighted by its bytes."""
    length = len(example["choices"][0].encode())
    return float(-outputs[0].sum() / np.log(2) / length), length


def _exact_match(example: dict, outputs: list[str]) -> tuple[float, float]:
    """1 if the first "#### number" of the text is that of the gold solution (strict-match)."""
    said = re.search(r"#### (-?[0-9.,]+)", outputs[0])
    return float(said is not None and _number(said[1]) == _number(example["answer"])), 1


def _number(answer: str) -> str:
    for ignored in (",", r"\$", r"(?s).*#### ", r"\.$"):
        answer = re.sub(ignored, "", answer)
    return answer.lower()


KINDS = {
    "mmlu": Kind(prompts.mmlu, encoding.one_token_choices, "accuracy"),
    "boolq": Kind(prompts.boolq, encoding.one_token_choices, "accuracy"),
    "arc_easy": Kind(prompts.arc_easy, encoding.completions, "accuracy"),
    "arc_easy_test": Kind(prompts.arc_easy_test, encoding.completions, "accuracy"),
    "c4": Kind(prompts.c4, encoding.text, "nats", _loss),
    "hellaswag": Kind(prompts.hellaswag, encoding.completions, "accuracy", per_character=True),
    "gsm8k": Kind(prompts.gsm8k, encoding.prompt, "accuracy", _exact_match, generated=True),
    "gsm8k_bpb": Kind(prompts.gsm8k, encoding.completions, "bits per byte", _bits_per_byte),
    "mmlu_other": Kind(prompts.mmlu, encoding.one_token_choices, "accuracy"),  # other questions
    "mmlu_content": Kind(prompts.mmlu_content, encoding.completions, "accuracy"),
    "arc_easy_letters": Kind(prompts.arc_easy_letters, encoding.one_token_choices, "accuracy"),
    "sciq": Kind(prompts.sciq, encoding.completions, "accuracy"),
    "squad": Kind(prompts.squad, encoding.completions, "bits per byte", _bits_per_byte),
}
KINDS |= {  # the same questions without their passages
    f"{name}_closed": replace(KINDS[name], build=partial(KINDS[name].build, passage=False))
    for name in ("boolq", "sciq", "squad")
}


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
        if not self.kind.score:
            compared = self._compared(self.likelihoods(outputs))
            pairs = zip(compared, self.examples, strict=True)
            return np.array([credit(c, e["answer"]) for c, e in pairs]), self._weights
        pairs = [self.kind.score(*pair) for pair in zip(self.examples, outputs, strict=True)]
        values, weights = np.array(pairs, dtype=float).T
        return values, weights

    def likelihoods(self, outputs: list[list]) -> list[np.ndarray] | None:
        """Of each question the log-likelihood of each choice (nats), where there are choices."""
        return None if self.kind.score else [likelihoods(found) for found in outputs]

    def told(self, likelihoods: list[np.ndarray] | None) -> dict:
        """What the answers were like: the columns TOLD of a score; None without choices.

        commonest: the share of the place (such as the letter) that is chosen most. ties: how many
        questions have several best choices. margin: the right choice minus the best wrong one,
        mean, in nats. bits_per_byte: bits of the right choice over its bytes without the space
        before it, so of a letter simply its bits. Shares and means have the weights of the score.
        """
        if likelihoods is None:
            return dict.fromkeys(TOLD)
        share, chosen, margins, ties = self._weights / self._weights.sum(), {}, [], 0
        answers = [example["answer"] for example in self.examples]
        for values, part, answer in zip(self._compared(likelihoods), share, answers, strict=True):
            best = np.flatnonzero(values == values.max())
            ties += len(best) > 1
            for place in best:
                chosen[place] = chosen.get(place, 0) + part / len(best)
            margins.append(values[answer] - np.delete(values, answer).max())
        right = np.array([v[answer] for v, answer in zip(likelihoods, answers, strict=True)])
        texts = [e["choices"][e["answer"]].removeprefix(" ") for e in self.examples]
        sizes = [len(text.encode()) for text in texts]
        commonest, margin = float(max(chosen.values(), default=np.nan)), float(share @ margins)
        bits = float(-(share @ right) / np.log(2) / (share @ sizes))
        return dict(zip(TOLD, (commonest, ties, margin, bits), strict=True))

    def blind(self) -> dict[str, float]:
        """What answers to these very questions score that need no model; {} without choices.

        letter: always the choice at one place, the best. shortest: the choice of fewest
        characters, where the choices are texts of their own.
        """
        if self.kind.score:
            return {}
        answers = [example["answer"] for example in self.examples]
        places = range(min(len(example["choices"]) for example in self.examples))
        always = [[float(answer == place) for answer in answers] for place in places]
        found = {"letter": max(self._mean(right) for right in always)}
        if self.kind.completes:
            lengths = [-np.array([*map(len, example["choices"])]) for example in self.examples]
            right = [credit(n, answer) for n, answer in zip(lengths, answers, strict=True)]
            found["shortest"] = self._mean(right)
        return found

    def unasked(self) -> "Task | None":
        """The same choices without the question, where they are texts: each after "Answer:"."""
        if self.kind.score or not self.kind.completes:
            return None
        bare = {"prompt": "Answer:", "group": "all"}
        return replace(self, examples=tuple(example | bare for example in self.examples))

    def _compared(self, found: list[np.ndarray]) -> list[np.ndarray]:
        """What decides between the choices: their log-likelihoods, or these a character."""
        if not self.kind.per_character:
            return found
        lengths = ([len(c) - 1 for c in e["choices"]] for e in self.examples)  # without its space
        return [values / sizes for values, sizes in zip(found, lengths, strict=True)]

    @property
    def _weights(self) -> np.ndarray:
        return np.array([example["weight"] for example in self.examples], float)

    def _mean(self, values: list[float]) -> float:
        return float(np.average(values, weights=self._weights))

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
        return self._mean([1 / len(example["choices"]) for example in self.examples])

    @property
    def majority(self) -> float | None:
        """What always giving the commonest answer scores, where answers mean the same (BoolQ)."""
        return self.blind()["letter"] if self.name == "boolq" else None


def question_set(name: str) -> str:
    """The set that a task's questions are of: mmlu_content asks those of mmlu."""
    return VARIANT.sub("", name)


def task(params: dict) -> Task:
    """The task that a result's parameters ask for: its name, where its data is, its counts.

    Raises ValueError for a task that is not known.
    """
    name = params["task"]
    if name not in KINDS:
        raise ValueError(f"Unknown task {name!r}: choose one of {', '.join(KINDS)}.")
    build = KINDS[name].build
    counts = {key: params[key] for key in signature(build).parameters if key in params}
    return Task(name, tuple(build(sets.source(params), **counts)))


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error (of a ratio estimator; for equal weights the usual one)."""
    share = weights / weights.sum()
    mean = float(share @ values)
    n = len(values)
    spread = n / (n - 1) * (share**2 @ (values - mean) ** 2) if n > 1 else np.nan
    return mean, float(np.sqrt(spread))


def credit(compared: np.ndarray, answer: int) -> float:
    """1 if the right choice is the likeliest, 1/k if it is one of k that are exactly equal."""
    best = np.asarray(compared) == np.max(compared)
    return float(best[answer] / best.sum())
