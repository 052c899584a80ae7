"""Which option is right, read at the end of each option's line: a probe that all options share.

Notebook 10. At the last token of each option's line the model has read that option, but not yet
"Answer:". One ridge regression maps such a state to whether its option is right. Of each state the
mean over its question's options is taken away, so what the question as a whole does cannot help.
The option with the highest output is chosen.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lib.evaluation import Task
from replication.beyond.letters.biases import FOLDS
from replication.beyond.letters.ridge import STRENGTHS, solved, unit


def cross_fitted(
    states: np.ndarray, answers: np.ndarray, shuffles: int = 0, factors: Sequence[float] = ()
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Return what `depth_probe.cross_fitted` does (places chosen and taught, each (1 + shuffles,
    n), and the median strength), of the chosen strengths and of these times each of `factors`.

    states: (n, options, D). A probe is fitted on four folds of questions and reads the fifth. Its
    strength is chosen on these four: fitted on three, judged by the squared error on the other.
    """
    draw = np.random.default_rng(0)
    labels = np.array([answers, *(draw.permutation(answers) for _ in range(shuffles))])
    inputs = unit(states)
    inputs = inputs - inputs.mean(axis=1, keepdims=True)
    num_options = inputs.shape[1]
    targets = (labels[:, :, None] == np.arange(num_options)) - 1 / num_options
    targets = np.moveaxis(targets, 0, -1)  # (n, options, 1 + shuffles)
    folds = stratified(answers)
    products = [_products(inputs[folds == fold], targets[folds == fold]) for fold in range(FOLDS)]

    def weights_without(held: Sequence[int], strengths) -> np.ndarray:
        """(strengths, D, 1 + shuffles), fitted on the folds but those of `held`."""
        kept = [products[fold] for fold in range(FOLDS) if fold not in held]
        grams, crosses = zip(*kept, strict=True)
        return solved(sum(grams), sum(crosses), strengths)

    errors = np.zeros((FOLDS, len(STRENGTHS), len(labels)))
    for pair in combinations(range(FOLDS), 2):
        weights = weights_without(pair, STRENGTHS)
        for held, judged in (pair, pair[::-1]):
            outputs = np.einsum("nod,kds->knos", inputs[folds == judged], weights, optimize=True)
            errors[held] += np.square(outputs - targets[folds == judged]).sum(axis=(1, 2))
    best = STRENGTHS[errors.argmin(axis=1)]  # (folds, 1 + shuffles)
    readings = []
    for factor in (1.0, *factors):
        of_factor = labels if factor == 1.0 else labels[:1]
        chosen = np.empty((len(of_factor), len(answers)), int)
        for fold in range(FOLDS):
            strengths = factor * best[fold, : len(of_factor)]
            every = np.unique(strengths)
            weights = weights_without([fold], every)
            own = weights[np.searchsorted(every, strengths), :, np.arange(len(of_factor))]
            outputs = np.einsum("nod,sd->sno", inputs[folds == fold], own, optimize=True)
            chosen[:, folds == fold] = outputs.argmax(axis=2)
        readings.append((chosen, of_factor, float(np.median(factor * best[:, 0]))))
    return readings


def _products(inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of x x^T, (D, D), and of x t^T, (D, sets)."""
    flat = inputs.reshape(-1, inputs.shape[-1])
    flat_targets = targets.reshape(len(flat), -1)
    gram = flat.T @ flat
    cross = flat.T @ flat_targets
    return gram, cross


def stratified(answers: np.ndarray) -> np.ndarray:
    """Return the fold of each question, (n,): the right places are spread evenly over the folds."""
    folds = np.empty(len(answers), int)
    folds[np.argsort(answers, kind="stable")] = np.arange(len(answers)) % FOLDS
    return folds


def lengths_and_words(task: Task) -> np.ndarray:
    """Return of each option its length in characters and words, and how many words of it its
    question has, too, as a count and as a share: (n, options, 4)."""
    inputs = []
    for example in task.examples:
        question, options = lines_of(example)
        known = set(question.lower().split())
        rows = []
        for option in options:
            words = option.lower().split()
            shared = sum(word in known for word in words)
            rows.append([len(option), len(words), shared, shared / max(1, len(words))])
        inputs.append(rows)
    inputs = np.array(inputs, float)
    return (inputs - inputs.mean(axis=(0, 1))) / inputs.std(axis=(0, 1)).clip(1e-9)


def lines_of(example: dict) -> tuple[str, list[str]]:
    """Return the question's own text, and the text of each option that it lists."""
    ends = option_ends(example["prompt"], example["choices"])
    starts = option_starts(example["prompt"], example["choices"])
    before = example["prompt"][: starts[0]]
    question = before[before.rfind("\n\n") + 1 :]
    options = [example["prompt"][start:end] for start, end in zip(starts, ends, strict=True)]
    return question, [option.split(". ", 1)[1] for option in options]


def option_starts(prompt: str, choices: Sequence[str]) -> list[int]:
    """Return where each option's line begins (its letter), as places in the prompt."""
    starts, end = [], len(prompt)
    for choice in reversed(choices):
        end = prompt.rindex(f"\n{choice.strip()}. ", 0, end)
        starts.insert(0, end + 1)
    return starts


def option_ends(prompt: str, choices: Sequence[str]) -> list[int]:
    """Return where each option's line ends (its newline), as places in the prompt."""
    starts = option_starts(prompt, choices)
    return [*(start - 1 for start in starts[1:]), prompt.rindex("\nAnswer:")]
