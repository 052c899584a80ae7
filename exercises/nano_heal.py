"""Healing by hand: LoRA, packed texts and the training loop, in plain PyTorch.

A test compares it, step by step, with `lib.healing.heal`, which does the same by peft and Trainer.
To heal what nano.ipynb has cut, run at its end (texts are to heal on, not those that judge):

    import nano_heal

    cut = without(best_start(6), 6)
    adapters = nano_heal.add_lora(cut, rank=8)
    rows = nano_heal.packed(choosing, tokenizer, length=128)
    nano_heal.heal(cut, rows, steps=12, batch=1, learning_rate=3e-4, warmup=2)
    loss(cut.eval(), judging)
"""

import math
import random

import torch
from torch import nn
from torch.nn.functional import cross_entropy


class LoRA(nn.Module):
    """A linear map W with a thin one beside it: W x + B A x. Only A and B learn."""

    def __init__(self, linear: nn.Linear, rank: int):
        super().__init__()
        self.linear = linear
        self.a = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        # B is zero, so that step 0 is the unhealed model; A is random, or both would stay zero
        self.b = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x):
        return self.linear(x) + x @ self.a.T @ self.b.T


def add_lora(model, rank: int) -> list[LoRA]:
    """Put LoRA beside each matrix of the feed-forward networks; all other weights stay."""
    model.requires_grad_(False)
    adapters = []
    for layer in model.model.layers:
        for name, linear in list(layer.mlp.named_children()):
            if isinstance(linear, nn.Linear):
                adapters.append(LoRA(linear, rank))
                setattr(layer.mlp, name, adapters[-1])
    return adapters


def packed(texts: list[str], tokenizer, length: int, seed: int = 0) -> list[list[list[int]]]:
    """Return rows of `length` tokens. A row is the documents in it, shuffled; what it cuts off a
    document begins the next one, so no token is padding and none is thrown away."""
    rows, room = [[]], length
    for text in random.Random(seed).sample(texts, len(texts)):
        document = [*tokenizer(text).input_ids, tokenizer.eos_token_id]  # learns to end, too
        while document:
            rows[-1].append(document[:room])
            document, room = document[room:], room - len(rows[-1][-1])
            if not room:
                rows, room = [*rows, []], length
    return rows[:-1]  # the last one is not full


def heal(model, rows: list, steps: int, batch: int, learning_rate: float, warmup: int) -> list:
    """Train for some steps of `batch` rows; return the loss of each, in nats a token."""
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
    model.train()
    losses = []
    for step in range(steps):
        documents = [ids for row in rows[step * batch :][:batch] for ids in row]
        targets = sum(len(ids) - 1 for ids in documents)  # the first token is no target
        loss_of_step = 0.0
        for ids in documents:  # one at a time, so that none reads another
            ids = torch.tensor(ids, device=model.device)
            logits = model(input_ids=ids[None], use_cache=False).logits[0]
            loss = cross_entropy(logits[:-1].float(), ids[1:], reduction="sum") / targets
            loss.backward()  # adds to the gradients: those of a step are of all its documents
            loss_of_step += loss.item()
        # one odd text must not throw the adapters far off
        nn.utils.clip_grad_norm_(weights, 1.0)
        # the rate rises from 0 during the warm-up, and falls to 0 along a cosine
        done = (step - warmup) / max(1, steps - warmup)
        share = step / warmup if step < warmup else (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss_of_step)
    return losses
