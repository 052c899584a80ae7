"""Memory and latency of a model and of its cut versions, measured in turn.

NF4 weights stay packed here, on the CPU too: nothing is timed under another's name.
"""

import torch
from bitsandbytes.nn import Linear4bit

from lib.blocks import UNPRUNED, simple_block
from lib.models import loading, registry
from lib.models.decoder import decoder_layers
from lib.models.latency import latencies
from lib.pruning import dropped
from replication import profiles

KERNEL = (32, 64)  # multiples that bitsandbytes' CPU kernel wants of a shape (outputs, inputs)


def in_turn(params: dict) -> dict:
    """Return bytes and seconds of a model and of its cut versions, as a result keeps them."""
    model = load(params["model"], params["quantization"], params["dtype"])
    num_layers = len(decoder_layers(model))
    sizes = profiles.sizes_at(params["fractions"], num_layers)
    blocks = [UNPRUNED, *(simple_block(num_layers, size) for size in sizes)]
    vocabulary = model.get_input_embeddings().num_embeddings
    prompt = torch.arange(params["prompt_tokens"])[None] % vocabulary
    versions = {b: {"block": [b.start, b.size], "prefill": [], "decode": []} for b in blocks}
    for turn in range(params["repeats"] + 1):
        for block, version in versions.items():
            with dropped(model, block):
                prefill, decode = latencies(model, prompt, params["new_tokens"])
                version["weights"] = weight_bytes(model)
            if turn:  # the first turn warms up: kernels are chosen, weights are packed
                version["prefill"].append(prefill)
                version["decode"].append(decode)
    return {"num_layers": num_layers, "versions": list(versions.values())}


def weight_bytes(model) -> int:
    """Bytes of all parameters and buffers, the scales of 4-bit weights included; shared once."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        tensors += _scales(getattr(parameter, "quant_state", None))
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _scales(state) -> list[torch.Tensor]:
    """The tensors that belong to a 4-bit weight, and to its scales if these are quantised too."""
    if state is None:
        return []
    tensors = [value for value in vars(state).values() if torch.is_tensor(value)]
    return tensors + _scales(getattr(state, "state2", None))


def load(name: str, quantization: str | None, dtype: str | None):
    """Return a model to run, not to train: NF4 weights are packed, as they are on a GPU.

    Raises ModelError if NF4 is asked for and there is nothing to pack.
    """
    model, _ = loading.load(name, quantization=quantization, dtype=dtype, packed=True)
    packed = [module for module in model.modules() if isinstance(module, Linear4bit)]
    if quantization and not packed:
        raise registry.ModelError(f"{type(model).__name__} has no linear maps to pack into NF4.")
    for module in packed:
        if module.out_features % KERNEL[0] or module.in_features % KERNEL[1]:
            module.support_avx512bf16_for_cpu = False  # the general kernel takes any shape
    return model
