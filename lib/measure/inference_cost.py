"""What dropped layers save when a model runs: memory of its weights, prefill and decode latency.

All versions of a format are measured in one run and in turn, the unpruned model among them, so that
whatever else slows the machine slows them alike; what counts are ratios to the unpruned model of
the same turn. One format is in memory at a time. NF4 weights stay packed here, on the CPU too:
nothing is timed under another's name.
"""

import logging
import time
from dataclasses import replace

import bitsandbytes as bnb
import numpy as np
import pandas as pd
import torch
from torch import nn

from lib import results
from lib.blocks import UNPRUNED, simple_block
from lib.measure import fetching
from lib.measure.wanted import Wanted
from lib.models import formats, loading, registry
from lib.models.decoder import decoder_layers
from lib.profiles import Profile
from lib.pruning import dropped

VERSION = 2  # bumped by hand when the numbers of `measure` change
FORMATS = (None, "nf4")
RESAMPLES = 1000
GB = 1e9

# What bitsandbytes' CPU kernel for packed weights asks of their shape (outputs, inputs).
_KERNEL = (32, 64)

log = logging.getLogger(__name__)


def measure(name: str, profile: Profile) -> pd.DataFrame:
    """Memory and speed of model `name`, whole and with the deepest layers dropped, as it is and
    in NF4.

    One row per version and quantity (`task`): weights (GB), prefill (s for the prompt), decode
    (s a token). value is the median of n turns, low and high their quartiles; ratio is the median
    of the ratios to the unpruned model of the same format and turn, ratio_low and ratio_high its
    95 % interval. A format that cannot be measured now, since it does not fit into memory say, has
    no value but a status; nothing of it is stored. Raises the ModelError (or NotMeasured) of the
    last format if none can be.
    """
    parts, missing = [], []
    for quantization in FORMATS:
        own = replace(profile, quantization=quantization)
        try:
            parts.append(_table(own, _of_format(name, own)))
        except (registry.ModelError, results.NotMeasured) as error:
            missing.append({"quantization": quantization, "status": error.status})
            log.warning("%s in %s: %s", name, quantization or "its own format", error)
            if not parts and quantization == FORMATS[-1]:
                raise
    described = {"profile": profile.name, "model": name, "dtype": parts[0].dtype.iloc[0]}
    parts += [pd.DataFrame([row]).assign(**described) for row in missing]
    return pd.concat(parts, ignore_index=True)


class TooLarge(registry.ModelError):
    """A model does not fit into the free memory."""

    status = "too large"


def _of_format(name: str, profile: Profile) -> dict:
    """The record of one format, that of the profile."""
    (asked,) = fetching.here([Wanted("inference_cost", {"model": name, **profile.weights})])
    params = asked.params | {
        "fractions": list(profile.heal_fractions),
        "sizes": list(profile.sizes),
        "prompt_tokens": profile.cost_prompt_tokens,
        "new_tokens": profile.cost_new_tokens,
        "repeats": profile.cost_repeats,
        "version": VERSION,
    }
    params["processor"] = formats.processor(params.get("device", "cpu"))
    both = {key: value for key, value in params.items() if key != "quantization"}
    if results.ARCHIVE.get() and (record := results.load("inference_cost", both)):
        return record  # of version 1, which kept both formats in one result
    return results.load_or_compute("inference_cost", params, lambda: _measured(name, profile))


def _measured(name: str, profile: Profile) -> dict:
    told = f"{name} in {profile.quantization or 'its own format'} does not fit into the free memory"
    loading.release()  # also this model, if it is loaded to be measured otherwise
    if not loading.fits(name, profile.batch_tokens, **profile.weights):
        raise TooLarge(f"{told}.")
    try:
        return _in_turn(load(name, profile, profile.quantization), profile)
    except torch.OutOfMemoryError as error:
        raise TooLarge(f"{told} once it runs.") from error


def _in_turn(model, profile: Profile) -> dict:
    """Bytes and seconds of the model and of its cut versions."""
    num_layers = len(decoder_layers(model))
    sizes = profile.healed_sizes(num_layers)
    blocks = [UNPRUNED, *(simple_block(num_layers, size) for size in sizes)]
    prompt = torch.arange(profile.cost_prompt_tokens)[None]
    seconds, bytes_of = {block: [] for block in blocks}, {}
    for turn in range(profile.cost_repeats + 1):
        for block in blocks:
            with dropped(model, block):
                found = latencies(model, prompt, profile.cost_new_tokens)
                bytes_of[block] = weight_bytes(model)
            if turn:  # the first turn warms up: kernels are chosen, weights are packed
                seconds[block].append(found)
    return {
        "num_layers": num_layers,
        "versions": [
            {
                "block": [block.start, block.size],
                "weights": bytes_of[block],
                "prefill": [prefill for prefill, _ in found],
                "decode": [decode for _, decode in found],
            }
            for block, found in seconds.items()
        ],
    }


@torch.inference_mode()
def latencies(model, prompt: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds to read `prompt` (1, T), and seconds a token to write `new_tokens` more, greedily."""
    prompt = prompt.to(model.device)
    start = _now()
    out = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    read = _now()
    for _ in range(new_tokens):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, cache=out.cache, use_cache=True)
    return read - start, (_now() - read) / new_tokens


def _now() -> float:
    """The time once all work is done: a GPU works on after the call has returned."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


# ---- memory --------------------------------------------------------------------------------


def weight_bytes(model) -> int:
    """Bytes of all parameters and buffers, the scales of 4-bit weights included; shared once."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        tensors += _scales(getattr(parameter, "quant_state", None))
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _scales(state) -> list[torch.Tensor]:
    """The tensors that belong to a 4-bit weight, and to its scales if these are quantised too."""
    found = [value for value in vars(state).values() if torch.is_tensor(value)] if state else []
    return found + (_scales(state.state2) if getattr(state, "state2", None) else [])


def load(name: str, profile: Profile, quantization: str | None):
    """A model to run, not to train: NF4 weights are packed, as they are on a GPU."""
    if quantization is None or loading.default_device() != "cpu":
        return loading.load(name, quantization=quantization, dtype=profile.dtype)[0]
    return packed(loading.load(name, dtype=profile.dtype)[0])


def packed(model):
    """The model with every linear map of its decoder in packed NF4, for inference only.

    The same maps and the same 4-bit values as `models.load(quantization="nf4")`, which unpacks them
    on a CPU. Raises ModelError if there is none to pack.
    """
    decoder = model.get_decoder()
    maps = {name: child for name, child in decoder.named_modules() if type(child) is nn.Linear}
    if not maps:
        raise registry.ModelError(f"{type(model).__name__} has no linear maps to pack into NF4.")
    for name, linear in maps.items():
        parent, _, child = name.rpartition(".")
        setattr(decoder.get_submodule(parent), child, _packed(linear))
    return model.requires_grad_(False).eval()


def _packed(linear: nn.Linear) -> bnb.nn.Linear4bit:
    how = loading.nf4()
    four_bit = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=how.bnb_4bit_compute_dtype,
        compress_statistics=how.bnb_4bit_use_double_quant,
        quant_type=how.bnb_4bit_quant_type,
        device="meta",
    )
    four_bit.weight = bnb.nn.Params4bit(
        linear.weight.data,
        requires_grad=False,
        compress_statistics=how.bnb_4bit_use_double_quant,
        quant_type=how.bnb_4bit_quant_type,
        module=four_bit,
    )
    four_bit.bias = linear.bias
    if linear.out_features % _KERNEL[0] or linear.in_features % _KERNEL[1]:
        four_bit.support_avx512bf16_for_cpu = False  # the general kernel takes any shape
    return four_bit.to(linear.weight.device)


# ---- tables --------------------------------------------------------------------------------


def _table(profile: Profile, record: dict) -> pd.DataFrame:
    values, told = record["values"], record["params"] | profile.weights
    of_format = profile.quantization
    versions = [v for v in values["versions"] if v.get("quantization", of_format) == of_format]
    versions = pd.DataFrame(versions)
    whole, rows = versions.iloc[0], []
    for version in versions.itertuples():
        start, size = version.block
        where = {
            "profile": profile.name,
            "model": told["model"],
            "dtype": record["params"]["dtype"],
            "quantization": told["quantization"],
            "strategy": "simple" if size else "none",
            "block_start": start,
            "block_size": size,
            "fraction": size / values["num_layers"],
            "treatment": "unhealed" if size else "unpruned",
            "status": "ok",
        }
        weights = {"value": version.weights / GB, "ratio": version.weights / whole.weights}
        rows.append(where | {"task": "weights", "n": 1} | weights)
        for task in ("prefill", "decode"):
            rows.append(where | {"task": task} | _spread(getattr(version, task), whole[task]))
    return pd.DataFrame(rows)


def _spread(seconds: list[float], unpruned: list[float]) -> dict:
    """Median and quartiles of a latency; its ratio to the unpruned one, paired by turn."""
    ratios = np.array(seconds) / unpruned
    drawn = np.random.default_rng(0).choice(ratios, (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "value": np.median(seconds),
        "low": np.quantile(seconds, 0.25),
        "high": np.quantile(seconds, 0.75),
        "ratio": np.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "n": len(ratios),
    }


def arithmetic(names: list[str], fraction: float = 0.5) -> pd.DataFrame:
    """The paper's arithmetic from the models' configurations: GB of weights, nothing is loaded.

    whole: 16-bit. dropped: 16-bit, without `fraction` of the layers. nf4: with the scales of NF4,
    and embeddings and lm_head in 16 bits, as bitsandbytes has it. both: the two together. paper:
    a quarter (4 bits of 16) of what is left after `fraction`, as the paper counts.
    """
    rows = []
    for name in names:
        shape = registry.shape(name)
        matrices = shape.attention + shape.experts * shape.expert
        left = shape.num_layers - round(fraction * shape.num_layers)

        def nf4(layers, shape=shape, matrices=matrices):
            return 2 * (shape.parameters(layers) - layers * matrices) + (
                loading.NF4_BYTES * layers * matrices
            )

        counted = {
            "whole": 2 * shape.parameters(),
            "dropped": 2 * shape.parameters(left),
            "nf4": nf4(shape.num_layers),
            "both": nf4(left),
            "paper": 2 * shape.parameters() * (1 - fraction) / 4,
        }
        told = {key: value / GB for key, value in counted.items()}
        rows.append({"model": registry.label(name), "layers": shape.num_layers} | told)
    return pd.DataFrame(rows)
