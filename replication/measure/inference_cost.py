"""What dropped layers save when a model runs: memory of its weights, prefill and decode latency.

All versions of a format are measured in one run and in turn, the unpruned model among them, so that
whatever else slows the machine slows them alike; what counts are ratios to the unpruned model of
the same turn. One format is in memory at a time. latency.py has the clock.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from lib.models import machine, registry
from lib.models.machine import NF4_BYTES
from replication import tables
from replication.measure import cache, fetching
from replication.measure.request import Request
from replication.profiles import DRAWN, Profile

VERSION = 2  # bumped by hand when the numbers of `measure` or of latency.py change
FORMATS = {"its own format": None, "nf4": "nf4"}
RESAMPLES = 1000
GB = 1e9


def measure(profile: Profile) -> tuple[pd.DataFrame, Profile]:
    """Memory and speed of every model that can be had, and the profile without the others.

    Of each model as it is and in NF4, whole and with the deepest layers dropped. One row per
    version and quantity (`task`): weights (GB), prefill (s for the prompt), decode (s a token).
    value is the median of n turns, low and high their quartiles; ratio is the median of the ratios
    to the unpruned model of the same format and turn, ratio_low and ratio_high its 95 % interval.
    A format that cannot be measured now, since it does not fit into memory say, has no value but a
    status; nothing of it is stored. Raises ModelError (or NotMeasured) if no model can be had.
    """
    if profile.name == DRAWN:
        costs = tables.read("cost", profile, profile.models)
        if costs.empty:
            raise tables.NotMeasured(f"No cost of {', '.join(profile.models)} is recorded.")
        return costs, profile
    measured, available = fetching.measure_each(of_model, profile.models, profile)
    tables.write(pd.concat(measured.values(), ignore_index=True), "cost", profile)
    return tables.read("cost", profile), available


def of_model(name: str, profile: Profile) -> pd.DataFrame:
    """The rows of one model. Raises the error of the last format if none can be measured."""

    def of_format(label: str) -> pd.DataFrame:
        in_format = replace(profile, quantization=FORMATS[label])
        return _table(in_format, _of_format(name, in_format))

    measured, missing = fetching.skip_unavailable(of_format, FORMATS)
    of_formats = list(measured.values())
    row = {"profile": profile.name, "model": name, "dtype": of_formats[0].dtype.iloc[0]}
    for label, status in missing.items():
        of_formats.append(pd.DataFrame([row | {"quantization": FORMATS[label], "status": status}]))
    return pd.concat(of_formats, ignore_index=True)


class TooLarge(registry.ModelError):
    """A model does not fit into the free memory."""

    status = "too large"


def request(name: str, profile: Profile) -> Request:
    """Return the request for the cost of one format, that of the profile."""
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
    return Request("inference_cost", params)


def _of_format(name: str, profile: Profile) -> dict:
    """Return the record of one format, that of the profile."""
    (keyed,) = fetching.keyed_by_machine([request(name, profile)])
    params = _on_this_machine(keyed.params)
    profile = replace(profile, dtype=params["dtype"])
    return cache.load_or_compute("inference_cost", params, lambda: _measured(name, profile))


def _on_this_machine(params: dict) -> dict:
    """The parameters with those of the machine that change a latency."""
    import torch  # here and below, since what only reads results loads no torch

    from lib.models import loading

    params = params | {"processor": machine.processor(loading.default_device())}
    return params | ({"threads": torch.get_num_threads()} if params.get("device") == "cpu" else {})


def _measured(name: str, profile: Profile) -> dict:
    import torch

    from lib.models import loading
    from replication.measure import latency

    label = profile.quantization or "its own format"
    loading.release()  # also this model, if it is loaded to be measured otherwise
    try:
        return latency.in_turn(latency.load(name, profile), profile)
    except torch.OutOfMemoryError as error:
        raise TooLarge(f"{name} in {label} does not fit into the free memory.") from error


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
        } | fetching.origin(record)
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
    from lib.models import sizes

    rows = []
    for name in names:
        of = sizes.parameters(sizes.skeleton(name))
        num_layers = len(of.layers)
        left, whole = num_layers - round(fraction * num_layers), of.size(num_layers, 2, 2)
        counted = {
            "whole": whole,
            "dropped": of.size(left, 2, 2),
            "nf4": of.size(num_layers, NF4_BYTES, 2),
            "both": of.size(left, NF4_BYTES, 2),
            "paper": whole * (1 - fraction) / 4,
        }
        gigabytes = {key: value / GB for key, value in counted.items()}
        rows.append({"model": registry.label(name), "layers": num_layers} | gigabytes)
    return pd.DataFrame(rows)
