"""Row 17: C4 texts as rows and batches, in arrays against a Python tuple a token."""

from types import SimpleNamespace
from unittest import mock

import torch
from torch.nn.utils.rnn import pad_sequence

from benchmarks import inputs
from benchmarks.sizes import Size
from benchmarks.table import Line, seconds
from benchmarks.timing import alternate
from lib.data import encoding
from lib.data.encoding import Row
from lib.models import files, reading
from lib.models.reading import Batch, prefix_batches

LONGEST = 2048  # tokens of a text
COPIES = 64  # of each text, so that seconds are more than noise


def c4_texts(size: Size) -> list[Line]:
    """Row 17: all batches of a C4 loss, from tokens that are given."""
    tokenizer, task = files.tokenizer(size.model), inputs.task("c4", size)
    texts = [tokenizer(example["text"]).input_ids[:LONGEST] for example in task.examples]
    texts = texts * COPIES
    pair = alternate(lambda: in_tuples(texts), lambda: in_arrays(texts), size.repeats)
    same = all(map(equal, pair.reference_value, pair.ours_value))
    line = Line(
        row=17,
        what=f"Rows and batches of {len(texts)} C4 texts, {sum(map(len, texts)):,} tokens",
        reference="a Python tuple a token",
        ours="`encoding.text`, `reading.prefix_batches`: arrays",
        required="≥ 3, same bits",
        ratio=pair.speedup,
        met=pair.speedup >= 3 and same,
        seconds=seconds(pair),
        notes=() if same else ("the batches differ.",),
    )
    return [line]


def in_arrays(texts: list[list[int]]) -> list[Batch]:
    """The library's batches."""

    def given(ids, truncation, max_length):
        return SimpleNamespace(input_ids=ids)

    examples = ({"text": ids, "max_tokens": LONGEST} for ids in texts)
    return batches([row for example in examples for row in encoding.text(example, given)])


def in_tuples(texts: list[list[int]]) -> list[Batch]:
    """The same with a tuple for each scored token, in its row and in its batch."""
    rows = []
    for ids in texts:
        target_ids = tuple((token,) for token in ids[1:])
        rows.append(Row(tuple(ids[:-1]), target_ids))
    with mock.patch.object(reading, "_batch", batch_of_tuples):
        return batches(rows)


def batches(rows: list[Row]) -> list[Batch]:
    shared = prefix_batches(rows, inputs.BATCH_TOKENS)
    return [batch for bundle in shared for batch in bundle.batches]


def batch_of_tuples(pairs: list[tuple[int, Row]], length: int) -> Batch:
    """A batch, built token by token."""
    rows = [row for _, row in pairs]
    own = [torch.tensor(row.tokens[length:]) for row in rows]
    most = max(len(targets) for row in rows for targets in row.target_ids)
    scored = []
    for i, row in enumerate(rows):
        first = len(own[i]) - len(row.target_ids)
        for position, targets in enumerate(row.target_ids, first):
            filled_up = targets + targets[:1] * (most - len(targets))
            scored.append((i, position, filled_up))
    row, position, target_ids = (torch.tensor(column) for column in zip(*scored, strict=True))
    return Batch(
        ids=pad_sequence(own, batch_first=True),
        places=[place for place, _ in pairs],
        row=row,
        position=position,
        target_ids=target_ids,
        counts=[len(row.target_ids) for row in rows],
        widths=[len(row.target_ids[0]) for row in rows],
    )


def equal(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same, dtypes too."""
    pairs = [(getattr(one, name), getattr(other, name)) for name in vars(one)]
    return all(
        a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in pairs
    )
