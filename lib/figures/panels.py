"""What panels of scores share: their units, labels and axes, and what lies behind their lines."""

import json

import pandas as pd

from lib import paths
from lib.analysis import curves
from lib.models import registry

TASKS = {
    "mmlu": "MMLU accuracy",
    "boolq": "BoolQ accuracy",
    "arc_easy": "ARC-Easy accuracy",
    "c4": r"C4 loss / $\ln V$",
    "hellaswag": "HellaSwag accuracy",
    "gsm8k": "GSM8K exact match",
    "gsm8k_bpb": "GSM8K gold, bits a byte",
    "sciq": "SciQ accuracy",
    "squad": "SQuAD gold, bits a byte",
}
AT_LEAST = (0.2, 0.6)  # what every axis of accuracies shows, so that noise looks like noise


def in_units_of_chance(scores: pd.DataFrame) -> pd.DataFrame:
    """The same scores with the C4 loss divided by ln V, as the paper shows it."""
    shown, loss = scores.copy(), scores.task == "c4"
    if "measure" not in shown:
        bits = dict.fromkeys(("gsm8k_bpb", "squad", "squad_closed"), "bits per byte")
        shown["unit"] = shown.task.map({"c4": "nats / ln V"} | bits).fillna("accuracy")
    for column in {"value", "standard_error", "chance", "floor"} & set(shown):
        shown.loc[loss, column] = shown.loc[loss, column] / scores.loc[loss, "chance"]
    return shown


def label(task: str, scores: pd.DataFrame) -> str:
    """What a panel of a task (or of other rows) shows, with the number of solved examples."""
    shots = scores.shots.dropna().unique()
    return TASKS.get(task, task) + (f"\n({int(shots[0])}-shot)" if len(shots) == 1 else "")


def level(axes: list, shaded: bool) -> None:
    """Give all axes of accuracies one range, from the neighbourhood of the floor and never narrow.

    shaded: show the fractions of layers, from least to largest, at which the paper's models fall.
    """
    told = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))["transitions"]
    ends = [end for pair in told.values() if isinstance(pair, list) for end in pair]
    lows, highs = zip(AT_LEAST, *(axis.get_ylim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_ylim(min(lows), max(highs))
        if shaded:
            text = f"the paper's range, {min(ends):.2f}–{max(ends):.2f}"
            axis.axvspan(min(ends), max(ends), color="0.94", zorder=-1, label=text)


def silent(scores: pd.DataFrame) -> bool:
    """Whether no unpruned model (or variant) stands out from its floor."""
    return all(curves.no_signal(row) for row in scores[scores.block_size == 0].itertuples())


def backdrop(axis, scores: pd.DataFrame) -> pd.DataFrame:
    """Chance, where it is better the floor (what no reading scores), and n; the unpruned scores."""
    unpruned = scores[scores.treatment == "unpruned"]
    for row in unpruned.itertuples():
        floor = curves.floor(row)
        if pd.notna(row.chance):
            axis.axhline(row.chance, color="grey", ls=(0, (5, 3)), lw=1, label="chance")
            if floor > row.chance:
                axis.axhline(floor, color="grey", ls="-.", lw=1, label="floor")
    axis.set_title(f"n = {scores.n.iloc[0]:.0f}", loc="right", fontsize=7)
    _stamp(axis, unpruned)
    return unpruned


def _stamp(axis, unpruned: pd.DataFrame) -> None:
    """Say behind the lines which unpruned models (or variants) do not stand out from the floor."""
    every = unpruned[unpruned.value.notna()]
    silent = every[[curves.no_signal(row) for row in every.itertuples()]]
    if silent.empty:
        return
    names = silent.variant if "variant" in silent else silent.model.map(registry.label)
    some = len(silent) < len(every)
    told = "no signal" + (f":\n{', '.join(dict.fromkeys(names))}" if some else "")
    style = {"color": "0.7", "weight": "bold", "fontsize": 9 if some else 16, "zorder": 0}
    place = (0.02, "bottom") if (every.chance == 0.5).all() else (0.97, "top")  # where it is empty
    axis.text(0.98, place[0], told, ha="right", va=place[1], transform=axis.transAxes, **style)
