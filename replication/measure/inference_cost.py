"""What dropped layers save when a model runs: memory of its weights, prefill and decode latency.

All versions of a format are measured in one run and in turn, the unpruned model among them, so that
whatever else slows the machine slows them alike; what counts are ratios to the unpruned model of
the same turn. One format is in memory at a time. NF4 weights stay packed here, on the CPU too:
nothing is timed under another's name.
"""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from bitsandbytes.nn import Linear4bit

from lib.blocks import UNPRUNED, simple_block
from lib.models import loading, machine, registry
from lib.models.decoder import decoder_layers
from lib.pruning import dropped
from replication import results
from replication.measure import fetching
from replication.measure.request import Request
from replication.profiles import Profile

VERSION = 2  # bumped by hand when the numbers of `measure` change
FORMATS = {"its own format": None, "nf4": "nf4"}
RESAMPLES = 1000
GB = 1e9

_KERNEL = (32, 64)  # multiples that bitsandbytes' CPU kernel wants of a shape (outputs, inputs)


def measure(profile: Profile) -> tuple[pd.DataFrame, Profile]:
    """Memory and speed of every model that can be had, and the profile without the others.

    Of each model as it is and in NF4, whole and with the deepest layers dropped. One row per
    version and quantity (`task`): weights (GB), prefill (s for the prompt), decode (s a token).
    value is the median of n turns, low and high their quartiles; ratio is the median of the ratios
    to the unpruned model of the same format and turn, ratio_low and ratio_high its 95 % interval.
    A format that cannot be measured now, since it does not fit into memory say, has no value but a
    status; nothing of it is stored. Raises ModelError (or NotMeasured) if no model can be had.
    """
    tables, available = fetching.measure_each(of_model, profile.models, profile)
    return pd.concat(tables.values(), ignore_index=True), available


def of_model(name: str, profile: Profile) -> pd.DataFrame:
    """The rows of one model. Raises the error of the last format if none can be measured."""

    def of_format(label: str) -> pd.DataFrame:
        in_format = replace(profile, quantization=FORMATS[label])
        return _table(in_format, _of_format(name, in_format))

    measured, missing = fetching.skip_unavailable(of_format, FORMATS)
    tables = list(measured.values())
    row = {"profile": profile.name, "model": name, "dtype": tables[0].dtype.iloc[0]}
    for label, status in missing.items():
        tables.append(pd.DataFrame([row | {"quantization": FORMATS[label], "status": status}]))
    return pd.concat(tables, ignore_index=True)


class TooLarge(registry.ModelError):
    """A model does not fit into the free memory."""

    status = "too large"


def _of_format(name: str, profile: Profile) -> dict:
    """The record of one format, that of the profile."""
    params = {
        "model": name,
        **profile.load_kwargs,
        "fractions": list(profile.heal_fractions),
        "sizes": list(profile.sizes),
        "prompt_tokens": profile.cost_prompt_tokens,
        "new_tokens": profile.cost_new_tokens,
        "repeats": profile.cost_repeats,
        "version": VERSION,
    }
    (keyed,) = fetching.keyed_by_machine([Request("inference_cost", params)])
    params = keyed.params | {"processor": machine.processor(loading.default_device())}
    params |= {"threads": torch.get_num_threads()} if params.get("device") == "cpu" else {}
    return results.load_or_compute("inference_cost", params, lambda: _measured(name, profile))


def _measured(name: str, profile: Profile) -> dict:
    label = profile.quantization or "its own format"
    problem = f"{name} in {label} does not fit into the free memory"
    loading.release()  # also this model, if it is loaded to be measured otherwise
    if not loading.fits(name, profile.batch_tokens, **profile.load_kwargs):
        raise TooLarge(f"{problem}.")
    try:
        return _in_turn(load(name, profile), profile)
    except torch.OutOfMemoryError as error:
        raise TooLarge(f"{problem} once it runs.") from error


def _in_turn(model, profile: Profile) -> dict:
    """Bytes and seconds of the model and of its cut versions."""
    num_layers = len(decoder_layers(model))
    sizes = profile.healed_sizes(num_layers)
    blocks = [UNPRUNED, *(simple_block(num_layers, size) for size in sizes)]
    vocabulary = model.get_input_embeddings().num_embeddings
    prompt = torch.arange(profile.cost_prompt_tokens)[None] % vocabulary
    versions = {b: {"block": [b.start, b.size], "prefill": [], "decode": []} for b in blocks}
    for turn in range(profile.cost_repeats + 1):
        for block, version in versions.items():
            with dropped(model, block):
                prefill, decode = latencies(model, prompt, profile.cost_new_tokens)
                version["weights"] = weight_bytes(model)
            if turn:  # the first turn warms up: kernels are chosen, weights are packed
                version["prefill"].append(prefill)
                version["decode"].append(decode)
    return {"num_layers": num_layers, "versions": list(versions.values())}


@torch.inference_mode()
def latencies(model, prompt: torch.Tensor, new_tokens: int) -> tuple[float, float]:
    """Seconds to read `prompt` (1, T), and seconds a token to write `new_tokens` more, greedily."""
    prompt = prompt.to(model.device)
    start = now()
    out = model(input_ids=prompt, use_cache=True, logits_to_keep=1)
    read = now()
    for _ in range(new_tokens):
        token = out.logits[:, -1:].argmax(-1)
        out = model(input_ids=token, cache=out.cache, use_cache=True)
    return read - start, (now() - read) / new_tokens


def now() -> float:
    """The time (s) once all work is done: a GPU works on after the call has returned."""
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
    if state is None:
        return []
    tensors = [value for value in vars(state).values() if torch.is_tensor(value)]
    return tensors + _scales(getattr(state, "state2", None))


def load(name: str, profile: Profile):
    """A model to run, not to train: NF4 weights are packed, as they are on a GPU.

    Raises ModelError if the profile asks for NF4 and there is nothing to pack.
    """
    model, _ = loading.load(name, **profile.load_kwargs, packed=True)
    packed = [module for module in model.modules() if isinstance(module, Linear4bit)]
    if profile.quantization and not packed:
        raise registry.ModelError(f"{type(model).__name__} has no linear maps to pack into NF4.")
    for module in packed:
        if module.out_features % _KERNEL[0] or module.in_features % _KERNEL[1]:
            module.support_avx512bf16_for_cpu = False  # the general kernel takes any shape
    return model


# ---- tables --------------------------------------------------------------------------------


def _table(profile: Profile, record: dict) -> pd.DataFrame:
    values, params = record["values"], record["params"]
    versions = pd.DataFrame(values["versions"])
    whole, rows = versions.iloc[0], []
    for version in versions.itertuples():
        start, size = version.block
        where = {
            "profile": profile.name,
            "model": params["model"],
            "dtype": params["dtype"],
            "quantization": profile.quantization,
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
    lower, value, upper = np.quantile(seconds, [0.25, 0.5, 0.75])
    return {
        "value": value,
        "low": lower,
        "high": upper,
        "ratio": np.median(ratios),
        "ratio_low": low,
        "ratio_high": high,
        "n": len(ratios),
    }


def arithmetic(names: list[str], fraction: float = 0.5) -> pd.DataFrame:
    """The paper's arithmetic from the models' configurations: GB of weights, nothing is loaded.

    whole: 16-bit. dropped: 16-bit, without `fraction` of the layers. nf4: with the scales of NF4,
    and embeddings, lm_head and experts in 16 bits, as bitsandbytes has it. both: the two together.
    paper: a quarter (4 bits of 16) of what is left after `fraction`, as the paper counts.
    """
    rows = []
    for name in names:
        shape = registry.shape(name)
        left = shape.num_layers - round(fraction * shape.num_layers)
        whole, cut = 2 * shape.parameters(), 2 * shape.parameters(left)
        saved = (2 - loading.NF4_BYTES) * shape.packable
        counted = {
            "whole": whole,
            "dropped": cut,
            "nf4": whole - shape.num_layers * saved,
            "both": cut - left * saved,
            "paper": whole * (1 - fraction) / 4,
        }
        gigabytes = {key: value / GB for key, value in counted.items()}
        rows.append({"model": registry.label(name), "layers": shape.num_layers} | gigabytes)
    return pd.DataFrame(rows)
