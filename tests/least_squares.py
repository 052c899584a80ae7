"""The linear map in place of a block, by hooks in the whole model and NumPy."""

import numpy as np
import torch

from lib.blocks import Block
from lib.models.decoder import decoder_layers


def z_of(model, block: Block, kind: str):
    """The module whose output is z: the layer before the block, or its FFN's last projection."""
    layer = decoder_layers(model)[block.start - 1]
    last = {"falcon": "dense_4h_to_h"}.get(model.config.model_type, "down_proj")
    return layer if kind == "full" else getattr(layer.mlp, last)


def by_hand(model, block: Block, kind: str, texts: list[list[int]]) -> tuple:
    """A map A of token ids, its ridge, and what it leaves of every fourth text, the longest first.

    By hooks in the whole model, which reads each text alone, and NumPy.
    """
    layers = decoder_layers(model)
    noted = []
    modules = z_of(model, block, kind), layers[block.start - 1], layers[block.stop - 1]

    def note(module, args, out):
        states = out[0] if isinstance(out, tuple) else out
        noted.append(states[0].double().cpu())

    hooks = [module.register_forward_hook(note) for module in modules]
    fit, held = [], []
    for number, ids in enumerate(sorted(texts, key=len, reverse=True)):
        noted.clear()
        with torch.inference_mode():
            model(torch.tensor([ids], device=model.device))
        z, x, y = noted
        lengths = y.norm(dim=1, keepdim=True)
        relative = torch.cat([z, y - x], 1) / lengths
        (fit if number % 4 else held).append(relative)
    for hook in hooks:
        hook.remove()
    (z, change), (held_z, held_change), every = (
        np.split(np.vstack(part), 2, axis=1) for part in (fit, held, held + fit)
    )

    def solved(z, change, ridge):
        gram = z.T @ z
        penalty = ridge * np.trace(gram) / len(gram)
        return np.linalg.solve(gram + penalty * np.eye(len(gram)), z.T @ change)

    def left(ridge):
        rest = held_change - held_z @ solved(z, change, ridge)
        return (rest**2).sum() / (held_change**2).sum()

    ridge = min(10.0 ** np.arange(-8, 4), key=left)
    return torch.tensor(solved(*every, ridge)).float(), ridge, left(ridge)
