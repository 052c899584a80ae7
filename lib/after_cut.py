"""Training of only the layers after a cut, on the states that the layers before it leave.

Those before the cut have no adapters, so their states are computed once a sequence, without
gradients, and a training step runs only what comes after.
"""

from collections.abc import Callable

import torch
from torch import nn

from lib.decoder import residual_stream
from lib.pruning import only_layers


class StatesBefore(torch.utils.data.Dataset):
    """Training sequences, each with x^(first), `chunk` of them computed when their turn comes.

    Items are the sequences' dicts (input_ids, labels) with `states`, (T, D), on the CPU.
    """

    def __init__(self, model, first: int, sequences: list[dict], chunk: int):
        self.model, self.first = model, first
        self.sequences, self.chunk = sequences, chunk
        self.begin, self.states = None, []

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, i: int) -> dict:
        begin = i - i % self.chunk
        if begin != self.begin:
            part = self.sequences[begin : begin + self.chunk]
            ids = [sequence["input_ids"] for sequence in part]
            self.begin, self.states = begin, states_before(self.model, self.first, ids)
        return self.sequences[i] | {"states": self.states[i - begin]}


@torch.no_grad()
def states_before(model, first: int, sequences: list[list[int]]) -> list[torch.Tensor]:
    """x^(first) of each token sequence, (T, D), on the CPU; the layers from `first` on do not run.

    No dropout is applied: these layers do not train.
    """
    padded = nn.utils.rnn.pad_sequence(list(map(torch.tensor, sequences)), batch_first=True)
    seen, training = {}, model.training
    model.eval()
    with only_layers(model, range(first)), residual_stream(model, seen.__setitem__, at=[first]):
        model.get_decoder()(input_ids=padded.to(model.device), use_cache=False)
    model.train(training)
    states = seen[first].cpu()
    return [state[: len(ids)] for state, ids in zip(states, sequences, strict=True)]


def collator(collate: Callable, padding_side: str) -> Callable:
    """`collate`, for items that also have states: these are padded on the same side."""

    def with_states(items: list[dict]) -> dict:
        states = [item["states"] for item in items]
        batch = collate([{k: v for k, v in item.items() if k != "states"} for item in items])
        padded = nn.utils.rnn.pad_sequence(states, batch_first=True, padding_side=padding_side)
        return dict(batch) | {"states": padded}

    return with_states
