"""Published speeds of QLoRA on one A100 of 80 GB, next to what the card's peak allows."""

import csv
from pathlib import Path

from lib.models import registry
from replication import plan, profiles

FILE = Path(__file__).with_suffix(".csv")
PEAKS = {"A100": 312e12}  # FLOP/s by the data sheet, dense bf16
HEADER = ("who", "model", "tokens", "tokens/s", "of the peak", "at the peak", "source")


def markdown() -> str:
    """The published speeds as a table.

    At the peak: tokens a second if every FLOP of a healing of the whole model, its activations
    recomputed, took no longer than the data sheet says.
    """
    rows = [HEADER, ["---"] * len(HEADER), *(cells(row) for row in published())]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    return f"## Published: QLoRA of whole models, one A100-80, activations recomputed\n\n{table}\n"


def published() -> list[dict]:
    with FILE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def cells(row: dict) -> list[str]:
    """A row's texts, in the order of HEADER."""
    rate = float(row["rate"])
    limit = ceiling(row["model"], int(row["tokens"]), row["card"])
    measured = [row["who"], registry.label(row["model"]), row["tokens"], f"{rate:,.0f}"]
    return [*measured, f"{rate / limit:.0%}", f"{limit:,.0f}", row["source"]]


def ceiling(model: str, tokens: int, card: str) -> float:
    """Tokens a second at the card's peak, in full sequences of `tokens`."""
    recipe = profiles.recipe(model, profiles.get("paper"), packed=True, max_tokens=tokens)
    loaded = plan.Loaded(plan.counted(model), "nf4", plan.get_card("a100-80"))
    work = loaded.healing(registry.num_layers(model), recipe, micro=(1, True))
    return PEAKS[card] * work.tokens / work.flops
