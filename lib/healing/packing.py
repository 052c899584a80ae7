"""Documents as sequences: the order in which a healing reads them, and its batches."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorWithFlattening

from ..data import chats, sets
from ..data.chats import Chat, Text

TOKENIZED_AT_ONCE = 64  # documents
_flattened = DataCollatorWithFlattening()


class Document(NamedTuple):
    """A document, or a part of one; labels: its ids, -100 where none counts; None: all count."""

    ids: list[int]
    labels: list[int] | None

    def split(self, place: int) -> tuple["Document", "Document"]:
        """Return what comes before a place, and what comes after."""
        labels = self.labels
        before = Document(self.ids[:place], labels and labels[:place])
        return before, Document(self.ids[place:], labels and labels[place:])


def training_sequences(tokenizer, recipe) -> tuple[list[dict], float]:
    """Return all sequences of a healing in the order they are read, and how many epochs that is.

    recipe: a `healing.Recipe`.

    A sequence is {"documents": token ids of each}; of chats also {"labels": of each, -100 where a
    token is not of an answer}. Packed: documents, each with the end-of-text token, fill sequences
    of max_tokens; chats have their own end. What a sequence cuts off a document begins the next
    one, or with `beginnings_first` is read once all documents were begun. Not packed: each document
    is one sequence, truncated. Documents are shuffled anew each epoch, by the seed. An epoch begins
    each document once. A sequence without any answer is left out. Raises ValueError for a tokenizer
    without an end-of-text token, if packed, and where no sequence has an answer.
    """
    count = recipe.steps * recipe.batch
    texts = sets.healing_texts(recipe.source, count)
    if recipe.packed and tokenizer.eos_token_id is None and isinstance(texts[0], str):
        raise ValueError(
            "Healing ends each text with the end-of-text token, and this tokenizer has none: name "
            "it as eos_token in its tokenizer_config.json."
        )
    documents = _in_order(tokenizer, texts, recipe)
    sequences, cut_off = [], []  # what is made, and the rests of documents that wait
    parts = []  # of the sequence that is being filled
    begun, any_target = 0, False
    while len(sequences) < count:
        if cut_off and (begun % len(texts) == 0 or not recipe.beginnings_first):
            document = cut_off.pop(0)
        elif begun > len(texts) and not any_target:
            raise ValueError(
                f"No answer has a token that healing reads in {recipe.max_tokens} tokens of a chat."
            )
        else:
            document = next(documents)
            begun += 1
        room = recipe.max_tokens - sum(len(part.ids) for part in parts)
        part, rest = document.split(room)
        parts.append(part)
        any_target = any_target or _as_sequence([part]) is not None
        if recipe.packed and rest.ids:
            cut_off.append(rest)
        is_full = len(part.ids) == room
        if is_full or not recipe.packed:
            if sequence := _as_sequence(parts):
                sequences.append(sequence)
            parts = []
    return sequences, round(begun / len(texts), 3)


def _as_sequence(parts: Sequence[Document]) -> dict | None:
    """Return parts of documents as a sequence; None if no token of it counts."""
    sequence = {"documents": [part.ids for part in parts]}
    if parts[0].labels is None:
        return sequence
    sequence["labels"] = [part.labels for part in parts]
    return sequence if targets([sequence]) else None


def _in_order(tokenizer, texts: Sequence[Text], recipe) -> Iterator[Document]:
    """Yield documents without end; only what is read becomes tokens."""
    shuffling = random.Random(recipe.seed)
    while True:
        epoch = shuffling.sample(texts, len(texts))
        for start in range(0, len(epoch), TOKENIZED_AT_ONCE):
            part = epoch[start : start + TOKENIZED_AT_ONCE]
            if isinstance(part[0], Chat):
                yield from (_answers_only(chat, tokenizer) for chat in part)
                continue
            for ids in tokenizer(part).input_ids:
                yield Document([*ids, tokenizer.eos_token_id] if recipe.packed else ids, None)


def _answers_only(chat: Chat, tokenizer) -> Document:
    """Return a chat of which the answers count."""
    ids, spans = chats.tokens(chat, tokenizer)
    labels = [-100] * len(ids)
    for start, stop in spans:
        labels[start:stop] = ids[start:stop]
    return Document(ids, labels)


def collator(joined: bool) -> Callable[[Sequence[dict]], dict]:
    """Return what makes a batch, with labels, of sequences (as of `training_sequences`).

    joined: all documents in one row, input_ids, position_ids and labels (1, N), and
    document_lengths, ints, which stay on the host: no layer waits for the GPU to tell them. Else a
    row each, (B, T). There is no loss on padding, on the first token of a document (label -100),
    and on what is not of an answer.
    """

    def collate(sequences: Sequence[dict]) -> dict:
        documents = [ids for sequence in sequences for ids in sequence["documents"]]
        labels = [of_one for sequence in sequences for of_one in _labels(sequence)]
        if not joined:
            return padded(documents, labels)
        pairs = zip(documents, labels, strict=True)
        row = _flattened([{"input_ids": ids, "labels": of_one} for ids, of_one in pairs])
        return row | {"document_lengths": list(map(len, documents))}

    return collate


def _labels(sequence: dict) -> list[list[int]]:
    """Return the labels of each document; of plain texts their ids."""
    return sequence.get("labels", sequence["documents"])


def padded(rows: Sequence[list[int]], labels: Sequence[list[int]]) -> dict[str, torch.Tensor]:
    """Return documents as rows, padded on the right, so that causal attention needs no mask.

    They are padded with token 0: no position looks ahead to it, and every model knows it, while a
    tokenizer may have a token for padding that the model has no embedding of.
    """
    labels = pad_sequence(list(map(torch.tensor, labels)), batch_first=True, padding_value=-100)
    labels[:, 0] = -100  # nothing predicts it, so it is no target to be counted
    return {
        "input_ids": pad_sequence(list(map(torch.tensor, rows)), batch_first=True),
        "labels": labels,
    }


def real_tokens(sequences: Iterable[dict]) -> int:
    """Return the number of tokens of all documents, padding not counted."""
    return sum(len(document) for sequence in sequences for document in sequence["documents"])


def targets(sequences: Iterable[dict]) -> int:
    """Return the number of tokens that count in the loss: never the first one of a document."""
    labels = (of_one[1:] for sequence in sequences for of_one in _labels(sequence))
    return sum(len(of_one) - of_one.count(-100) for of_one in labels)


def micro_batches(batch: int, most: int) -> list[int]:
    """Return how many sequences may be read at a time, the most first: divisors of the batch."""
    return [count for count in range(most, 0, -1) if batch % count == 0]
