"""lm-eval's logs without the bias of letters: `python -m replication.unbias samples_mmlu_*.jsonl`.

Reads the files that `lm_eval --log_samples --output_path …` writes of a task whose choices are
letters. Prints the accuracy as given and with each letter's mean removed, as notebook 10 does: the
mean over the *other* folds of questions. Runs no model. Every question counts alike, as in lm-eval.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lib.evaluation import weighted_mean
from replication.beyond.letters import biases
from replication.tables import FEWEST

NAME = re.compile(r"^samples_|_\d{4}-\d\d-\d\dT.*$")  # what surrounds the task in a file's name
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError)


class LogError(ValueError):
    """A file is none of lm-eval's logs by letter; the message says why, in one sentence."""


def read(files: Sequence[Path]) -> dict[str, list]:
    """Return choices (log-likelihoods in nats, one array a question), answers and weights.

    Questions are in the order of the files, and within a file by number. Raises LogError or
    OSError.
    """
    score, tasks = {"choices": [], "answers": [], "weights": []}, set()
    for file in files:
        task = NAME.sub("", file.name)
        if task in tasks:
            raise LogError(f"{file} is the second file of {task}: give those of one run.")
        tasks.add(task)
        questions = {}
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
        for number, line in enumerate(lines, start=1):
            if not line:  # the end of the file
                continue
            try:
                sample = json.loads(line)
                # lm-eval repeats a question for each of its filters: any of them will do
                questions[sample["doc_id"]] = _question(sample)
            except LogError as error:
                raise LogError(f"{file}, line {number}: {error}") from None
            except UNREADABLE as error:
                raise LogError(
                    f"{file}, line {number}: this is no question of a multiple-choice task as "
                    f"lm-eval logs it with --log_samples ({type(error).__name__}: {error})."
                ) from None
        for number in sorted(questions):
            loglikelihoods, answer = questions[number]
            score["choices"].append(loglikelihoods)
            score["answers"].append(answer)
            score["weights"].append(1.0)
    return score


def _question(sample: dict) -> tuple[np.ndarray, int]:
    """Return the log-likelihood of each letter, (letters,), and the place of the right one.

    Raises LogError for choices that are no letters, or an answer by which lm-eval did not score.
    """
    arguments = sample["arguments"]
    if isinstance(arguments, dict):  # gen_args_0: {arg_0: prompt, arg_1: choice}, …
        arguments = [list(request.values()) for request in arguments.values()]
    choices = [choice.strip() for _, choice in arguments]
    letters = list(LETTERS[: len(choices)])
    if choices != letters:
        raise LogError(f"the choices are {choices[:5]}, and only letters from A on have a bias.")
    values = np.array([float(value) for value, _ in sample["filtered_resps"]])
    if len(values) != len(letters) or not np.isfinite(values).all():
        raise LogError(f"{len(letters)} letters have the log-likelihoods {values.tolist()}.")
    target = str(sample["target"]).strip()
    answer = letters.index(target) if target in letters else range(len(letters))[int(target)]
    best = np.flatnonzero(values == values.max())
    if len(best) == 1 and (best[0] == answer) != bool(sample["acc"]):
        raise LogError(f"lm-eval scored {sample['acc']}, but not by the target {target!r}.")
    return values, answer


def report(score: dict[str, list]) -> str:
    """Return accuracy and commonest letter, as given and with means removed, and their difference.

    Raises LogError where there are too few questions with four letters.
    """
    lengths = [len(choices) for choices in score["choices"]]
    count, others = lengths.count(biases.LETTERS), len(lengths) - lengths.count(biases.LETTERS)
    if count < FEWEST:
        raise LogError(
            f"These logs have {count} questions with {biases.LETTERS} letters, and at least "
            f"{FEWEST} are needed: give the files of all subjects."
        )
    loglikelihoods, answers, weights = biases.answers_by_letter(score)
    lines = [f"{count} questions, {others} with another number of letters left out"]
    examples = []
    for name, values in (
        ("as given", loglikelihoods),
        ("means removed", biases.without_bias(loglikelihoods, weights)),
    ):
        examples.append(biases.correct(values, answers))
        mean, error = weighted_mean(examples[-1], weights)
        chosen = np.bincount(values.argmax(axis=1), minlength=biases.LETTERS)
        letter, times = LETTERS[chosen.argmax()], chosen.max()
        lines.append(
            f"{name + ':':15} {mean:.3f} ± {error:.3f}; commonest letter {letter}, "
            f"{times} of {count} ({times / count:.2f})"
        )
    gain, error = weighted_mean(examples[1] - examples[0], weights)
    lines.append(f"{'gained:':15} {gain:+.3f} ± {error:.3f} (paired on questions; one s.e.)")
    means = biases.letter_means(loglikelihoods, weights)
    shown = ", ".join(f"{letter} {mean:+.2f}" for letter, mean in zip(LETTERS, means, strict=False))
    return "\n".join([*lines, f"{'means, nats:':15} {shown}"])


def main(argv: list[str] | None = None) -> int:
    first = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m replication.unbias", description=first)
    parser.add_argument("logs", nargs="+", type=Path, help="samples_<task>_<date>.jsonl")
    try:
        print(report(read(parser.parse_args(argv).logs)))
    except (LogError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
