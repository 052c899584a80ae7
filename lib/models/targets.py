"""A teacher's answers as targets of a healing: its k likeliest tokens at every position.

Distillation: the pruned model learns what the unpruned one says of each next token, not only which
token came. All other tokens are one bucket, so that nothing is said of how they share its
probability; renormalised, the k would teach that nothing else ever comes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from lib import paths
from lib.blocks import HEAD_POSITIONS
from lib.models.decoder import logits
from lib.models.documents import padded

LEAST = 1e-6  # probability of the bucket, so that its logarithm stays finite


def loss(scores: torch.Tensor, tokens: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """Cross-entropy (N,) in nats of logits (N, V) with the teacher's p of k tokens (N, k).

    - sum over the k of p log q  -  (1 - sum p) log (1 - sum q). With k = V the usual
    - sum p log q: the Kullback-Leibler divergence, plus the teacher's own entropy.
    """
    found = scores.gather(1, tokens) - scores.logsumexp(1, keepdim=True)
    p, q = log_probs.exp(), found.exp()
    rest = (1 - p.sum(1)).clamp(min=0) * (1 - q.sum(1)).clamp(min=LEAST).log()
    return -(p * found).sum(1) - rest


def batch_loss(model, inputs: dict, count: torch.Tensor | None) -> torch.Tensor:
    """The mean of `loss` over a micro-batch of `collator`; with a `count` its sum over that."""
    inputs = dict(inputs)
    tokens, log_probs = inputs.pop("teacher_tokens"), inputs.pop("teacher_log_probs")
    predicted = inputs.pop("labels")[:, 1:] != -100  # nothing predicts a document's first token
    scores = model(**inputs).logits[:, :-1][predicted].float()
    losses = loss(scores, tokens[:, :-1][predicted].long(), log_probs[:, :-1][predicted])
    return losses.sum() / (len(losses) if count is None else count)


def collator(plain: Callable[[Sequence[dict]], dict]) -> Callable[[Sequence[dict]], dict]:
    """The batches of `plain` (`documents.collator`), with targets where sequences have them."""

    def collate(sequences: Sequence[dict]) -> dict:
        batch, first = plain([{"documents": s["documents"]} for s in sequences]), 0
        if "targets" not in sequences[0]:
            return batch
        numbered = []  # each token's number, laid out like the tokens
        for sequence in sequences:
            for document in sequence["documents"]:
                numbered.append(list(range(first, first + len(document))))
                first += len(document)
        places = plain([{"documents": numbered}])["input_ids"].clamp(max=first - 1)
        for name in ("tokens", "log_probs"):
            batch[f"teacher_{name}"] = torch.cat([s["targets"][name] for s in sequences])[places]
        return batch

    return collate


def attached(sequences: Sequence[dict], file: Path) -> list[dict]:
    """The sequences of a healing, each with its part of a file of `write`."""
    told, found, first = load_file(file), [], 0
    for sequence in sequences:
        last = first + sum(map(len, sequence["documents"]))
        part = {name: rows[first:last] for name, rows in told.items()}
        found.append(sequence | {"targets": part})
        first = last
    if any(len(rows) != first for rows in told.values()):
        raise ValueError(f"{file} has targets of other sequences.")
    return found


@torch.inference_mode()
def write(file: Path, model, sequences: Sequence[dict], k: int, batch_tokens: int = 2048) -> None:
    """What `model` says at each token of the sequences, read document by document.

    tokens (N, k), the likeliest next ones, and their log_probs (N, k) in fp32; whole or not at all.
    """
    documents = [document for s in sequences for document in s["documents"]]
    found: list = [None] * len(documents)
    left = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
    while left:
        size = max(1, batch_tokens // len(documents[left[0]]))
        part, left = left[:size], left[size:]
        ids = padded([documents[i] for i in part], 0)["input_ids"].to(model.device)
        states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        for i, row in zip(part, states, strict=True):
            found[i] = []
            for some in row[: len(documents[i])].split(HEAD_POSITIONS):
                values, tokens = logits(model, some).float().log_softmax(-1).topk(k)
                found[i].append((values.cpu(), tokens.cpu()))
    log_probs, tokens = zip(*(pair for pairs in found for pair in pairs), strict=True)
    told = {"tokens": torch.cat(tokens).int(), "log_probs": torch.cat(log_probs)}
    paths.write_whole(file, save(told))
