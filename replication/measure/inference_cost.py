"""What dropped layers save when a model runs: memory of its weights, prefill and decode latency.

All versions of a format are measured in one run and in turn, the unpruned model among them, so that
whatever else slows the machine slows them alike; what counts are ratios to the unpruned model of
the same turn. One format is in memory at a time. latency.py has the clock.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lib.models import registry
from replication.measure import fetching
from replication.measure.fetching import Rows
from replication.measure.request import Request
from replication.profiles import Profile

VERSION = 2  # bumped by hand when the numbers of latency.py change
FORMATS = (None, "nf4")  # quantisations
RESAMPLES = 1000
GB = 1e9


def cost(name: str, distances, profile: Profile) -> list[Request]:
    """Return requests for memory and speed of a model as it is and in NF4, of those to study."""
    if name not in profile.study_models:
        return []
    requests = []
    for quantization in FORMATS:
        params = {
            "model": name,
            **profile.load_kwargs,
            "quantization": quantization,
            "fractions": list(profile.heal_fractions),
            "prompt_tokens": profile.cost_prompt_tokens,
            "new_tokens": profile.cost_new_tokens,
            "repeats": profile.cost_repeats,
            "version": VERSION,
        }
        requests.append(Request("inference_cost", params, {"profile": profile.name}))
    return requests


def _time_formats(missing: Sequence[Request]) -> None:
    """Measure each format; one that does not fit into memory stays missing, and the log says so."""
    import torch  # here and below, since what only reads results loads no torch

    errors = registry.ModelError, torch.OutOfMemoryError
    fetching.each(_timed, errors)(missing)


fetching.MEASURE["inference_cost"] = _time_formats


def _timed(params: dict) -> Rows:
    from lib.models import loading
    from replication.measure import latency

    loading.release()  # also this model, if it is loaded to be measured otherwise
    return _rows(latency.in_turn(params))


# ---- tables --------------------------------------------------------------------------------


def table(requests: Sequence[Request]) -> pd.DataFrame:
    """Return memory and speed of models, whole and with the deepest layers dropped.

    One row per version and quantity (`task`): weights (GB), prefill (s for the prompt), decode (s a
    token). value is the median of n turns, low and high their quartiles; ratio is the median of the
    ratios to the unpruned model of the same format and turn, ratio_low and ratio_high its 95 %
    interval. A format that could not be measured has one row, without a value.
    """
    results = zip(requests, fetching.fetch(requests), strict=True)
    return pd.DataFrame([request.labels | row for request, rows in results for row in rows])


def _rows(timed: dict) -> Rows:
    """Return the rows of one format, as `latency.in_turn` has timed it."""
    whole, rows = timed["versions"][0], []
    for version in timed["versions"]:
        start, size = version["block"]
        columns = {
            "strategy": "simple" if size else "none",
            "block_start": start,
            "block_size": size,
            "fraction": size / timed["num_layers"],
            "treatment": "unhealed" if size else "unpruned",
        }
        weights = {"value": version["weights"] / GB, "ratio": version["weights"] / whole["weights"]}
        rows.append(columns | {"task": "weights", "n": 1} | weights)
        for task in ("prefill", "decode"):
            rows.append(columns | {"task": task} | _spread(version[task], whole[task]))
    return rows


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
