"""Documents as sequences: the order in which a healing reads them, and its batches."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorWithFlattening

from lib.data import sets

TOKENIZED_AT_ONCE = 64  # documents
_flattened = DataCollatorWithFlattening()


def training_sequences(tokenizer, recipe) -> tuple[list[dict], float]:
    """Return all sequences of a healing in the order they are read, and how many epochs that is.

    recipe: a `healing.Recipe`.

    A sequence is {"documents": token ids of each}. Packed: documents, each with the end-of-text
    token, fill sequences of max_tokens. What a sequence cuts off a document begins the next one,
    or with `beginnings_first` is read once all documents were begun. Not packed: each document is
    one sequence, truncated. Documents are shuffled anew each epoch, by the seed. An epoch begins
    each document once. Raises ValueError for a tokenizer without an end-of-text token, if packed.
    """
    if recipe.packed and tokenizer.eos_token_id is None:
        raise ValueError(
            "Healing ends each text with the end-of-text token, and this tokenizer has none: name "
            "it as eos_token in its tokenizer_config.json."
        )
    count = recipe.steps * recipe.batch
    texts = sets.healing_texts(recipe.source, count)
    documents = _in_order(tokenizer, texts, recipe)
    sequences, sequence, cut_off, begun = [], [], [], 0
    while len(sequences) < count:
        if cut_off and (begun % len(texts) == 0 or not recipe.beginnings_first):
            document = cut_off.pop(0)
        else:
            document = next(documents)
            begun += 1
        room = recipe.max_tokens - sum(map(len, sequence))
        sequence.append(document[:room])
        if recipe.packed and document[room:]:
            cut_off.append(document[room:])
        if not recipe.packed or len(sequence[-1]) == room:
            sequences.append({"documents": sequence})
            sequence = []
    return sequences, round(begun / len(texts), 3)


def _in_order(tokenizer, texts: Sequence[str], recipe) -> Iterator[list[int]]:
    """Yield the token ids of documents without end; only what is read becomes tokens."""
    shuffling = random.Random(recipe.seed)
    while True:
        epoch = shuffling.sample(texts, len(texts))
        for start in range(0, len(epoch), TOKENIZED_AT_ONCE):
            part = epoch[start : start + TOKENIZED_AT_ONCE]
            for ids in tokenizer(part).input_ids:
                yield [*ids, tokenizer.eos_token_id] if recipe.packed else ids


def collator(joined: bool) -> Callable[[Sequence[dict]], dict]:
    """Return what makes a batch, with labels, of sequences ({"documents": token ids of each}).

    joined: all documents in one row, input_ids, position_ids and labels (1, N), and
    document_lengths, ints, which stay on the host: no layer waits for the GPU to tell them. Else a
    row each, (B, T). There is no loss on padding and on the first token of a document (label -100).
    """

    def collate(sequences: Sequence[dict]) -> dict:
        documents = [ids for sequence in sequences for ids in sequence["documents"]]
        if joined:
            row = _flattened([{"input_ids": ids} for ids in documents])
            return row | {"document_lengths": list(map(len, documents))}
        return padded(documents)

    return collate


def padded(rows: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """Return documents as rows, padded on the right, so that causal attention needs no mask.

    They are padded with token 0: no position looks ahead to it, and every model knows it, while a
    tokenizer may have a token for padding that the model has no embedding of.
    """
    rows = list(map(torch.tensor, rows))
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    labels[:, 0] = -100  # nothing predicts it, so it is no target to be counted
    return {
        "input_ids": pad_sequence(rows, batch_first=True),
        "labels": labels,
    }


def real_tokens(sequences: Iterable[dict]) -> int:
    """Return the number of tokens of all documents, padding not counted."""
    return sum(len(document) for sequence in sequences for document in sequence["documents"])


def micro_batches(batch: int, most: int) -> list[int]:
    """Return how many sequences may be read at a time, the most first: divisors of the batch."""
    return [count for count in range(most, 0, -1) if batch % count == 0]
