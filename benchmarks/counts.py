"""What counting layer applications allows, however fast a layer is."""

import json
import random
from statistics import median

from benchmarks.sizes import Size
from benchmarks.table import Line
from lib.blocks import Block, simple_block
from lib.healing import packing
from replication import paths, profiles, results

STEPS = 500  # of a healing, for its padding


def ratio(num_layers: int, blocks: list[Block], head: float = 0) -> float:
    """Layers run whole, over layers run from the cut on.

    `head` is what scoring costs each version, in layers; sharing cannot save it.
    """
    whole = [num_layers - block.size for block in blocks]
    after = [num_layers - block.stop for block in blocks]
    own = head * (1 + len(blocks))
    return (num_layers + sum(whole) + own) / (num_layers + sum(after) + own)


def llama_2_70b(size: Size) -> list[Line]:
    """Row 5, computed only: the sweep of the paper's largest model, L = 80 and n = 1 … 64."""
    starts = json.loads((paths.DATA / "published.json").read_text())["best_starts"]["llama-2-70b"]
    similar = [Block(start, n) for n, start in enumerate(starts, start=1)]
    simple = [simple_block(80, n) for n in range(1, len(starts) + 1)]
    both = list(dict.fromkeys([*similar, *simple]))
    return [
        _counted("both strategies", ratio(80, both), "about 10", 9.5),
        _counted("simple strategy alone", ratio(80, simple), "> 20", 20),
    ]


def _counted(which: str, speedup: float, required: str, least: float) -> Line:
    return Line(
        row=5,
        what=f"Sweep of a model with L = 80, n = 1 … 64, {which} (counted, not timed)",
        reference="every version whole",
        ours="every version from its cut on",
        required=required,
        ratio=speedup,
        met=speedup > least,
        limit=f"{speedup:.2f}",
    )


def padding(size: Size) -> list[Line]:
    """Row 13, counted: what the paper's healing of Llama-2-7B reads, over its documents' tokens."""
    recipe = profiles.recipe("llama-2-7b", profiles.get("paper"))
    known = json.loads((paths.DATA / "token_counts.json").read_text())["c4"]
    drawn = random.Random(0).choices(known, k=STEPS * recipe.batch)
    sequences = [{"documents": [[0] * min(n, recipe.max_tokens)]} for n in drawn]
    real, lines = packing.real_tokens(sequences), []
    for micro in (2, 4, 8):
        starts = range(0, len(sequences), micro)
        groups = [sequences[start : start + micro] for start in starts]
        before = sum(packing.processed_tokens(g, micro, micro) for g in groups) / real
        batches = map(packing.collator(True, 0), groups)
        rows = sum(batch["input_ids"].numel() for batch in batches) / real
        ordered = packing.processed_tokens(sequences, recipe.batch, micro) / real
        cases = (("sorted by length", ordered, 1.45), ("joined", rows, 1.05))
        for which, read, most in cases:
            lines.append(
                Line(
                    row=13,
                    what=f"Tokens read over real ones, {micro} documents at a time (counted)",
                    reference=f"padded as they come: {before:.2f}",
                    ours=f"{which}: {read:.2f}",
                    required=f"≤ {most}" if micro == 4 else "shown",
                    ratio=before / read,
                    met=read <= most if micro == 4 else None,
                )
            )
    return lines


def c4_interval(size: Size) -> list[Line]:
    """Row 15, counted: the 95 % interval of a C4 loss, from the recorded spread of its texts."""
    recorded = results.archive(paths.RECORDED / profiles.RECORDED)
    records = recorded.records("scores")
    scores = [record["values"] for record in records if record["params"]["task"] == "c4"]
    spread = median(score["standard_error"] * score["n"] ** 0.5 for score in scores)
    many, few = (1.96 * spread / texts**0.5 for texts in (60_000, 6_000))
    line = Line(
        row=15,
        what=f"95 % interval of a C4 loss, texts with a spread of {spread:.2f} nats (counted)",
        reference=f"60,000 texts: ± {many:.4f} nats",
        ours=f"6,000 texts: ± {few:.4f} nats",
        required="shown",
    )
    return [line]
