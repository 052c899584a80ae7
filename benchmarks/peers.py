"""`python -m benchmarks.peers MODEL`: what other tools choose and repair, beside ours.

Of 10, 20 and 30 % of the layers: the most similar block (PruneMe's choice, too, which mergekit
cuts), short-transformers' block, ShortGPT's layers, ReplaceMe's least squares, and ours. The others
are their formulas, computed by our code; all is in float32. Minutes are of one thread's CPU, for
mapping and healing: choosing takes each of them one pass. Differences are from our map and then
LoRA, paired on texts and questions. Puts the model's rows into benchmarks/results/peers.csv, depth
by depth.
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch

from lib.blocks import Block
from lib.data import sets
from lib.evaluation import weighted_mean
from lib.healing import heal, linear, lora
from lib.models import loading, machine, registry
from lib.models.layers import only_layers
from lib.prune.options import FITTED, MAX_TOKENS, TEXTS, Options
from lib.similarity import calibration_batches
from lib.sweep import sweep
from replication.beyond import which_block

FILE = Path(__file__).parent / "results" / "peers.csv"
CUT, REPLACEME = "cut (PruneMe 279c6b1, mergekit)", "ReplaceMe (2505.02819), on this block"
MAP, LORA, BOTH = "ours: map", "ours: LoRA", "ours: map, then LoRA"
COLUMNS = ["model", "layers", "method", "task", "value", "standard_error", "difference"]
COLUMNS += ["difference_error", "minutes", "steps", "n", "kept", "processor"]


def kept_layers(model, texts: list[torch.Tensor], size: int) -> dict[str, list[int]]:
    """Return the layers that each tool keeps. A map, and PruneMe, need a layer before the block."""
    changes = [which_block.of_text(model, ids) for ids in texts]
    distances = np.mean([change["last"] for change in changes], 0)
    influences = np.mean([change["influence"] for change in changes], 0).diagonal(1)
    starts = {
        CUT: 1 + distances.diagonal(size)[1:].argmin(),
        "short-transformers 1.0.0": distances.diagonal(size + 1).argmin(),  # of one layer more
    }
    kept = {tool: Block(int(start), size).kept(len(influences)) for tool, start in starts.items()}
    return kept | {"ShortGPT (2403.03853)": sorted(influences.argsort()[size:].tolist())}


def unweighted(before, after, inputs) -> linear.Moments:
    """Return the moments of ReplaceMe's least squares, where long states count more."""
    z, change = inputs.double(), (after - before).double()
    return linear.Moments(z.T @ z, z.T @ change, float(change.square().sum()))


def measured(options: Options) -> pd.DataFrame:
    """Return a row a method and task: value, examples, minutes, the layers that are kept."""
    model, tokenizer = loading.load(options.model, dtype="float32")
    truncated = {"truncation": True, "max_length": MAX_TOKENS, "return_tensors": "pt"}
    chosen_on = sets.c4("train", "wheels", TEXTS)
    ids = [tokenizer(text, **truncated).input_ids[0] for text in chosen_on]
    kept = kept_layers(model, ids, options.layers)
    jumps = (place for place, layer in enumerate(kept[CUT]) if place != layer)
    block = Block(next(jumps, len(kept[CUT])), options.layers)
    fitted_on = sets.healing_texts("wheels", FITTED)[:FITTED]
    texts = list(calibration_batches(fitted_on, tokenizer, MAX_TOKENS, batch_tokens=2048))
    changes = {}
    minutes = {None: 0}
    scores = {}
    tables = []
    for method, moments, ridges in (
        (REPLACEME, unweighted, (1e-12,)),
        (MAP, linear.moments, linear.RIDGES),
    ):
        start = time.process_time()
        with mock.patch.multiple(linear, moments=moments, RIDGES=ridges):
            maps = linear.fitted_all(model, [block], ["folded"], texts)[block]
            changes[method] = maps["folded"][0].change
        minutes[method] = (time.process_time() - start) / 60
    for method, keep, fitted, steps in (
        ("whole", range(registry.num_layers(options.model)), None, 0),
        *((tool, keep, None, 0) for tool, keep in kept.items()),
        (REPLACEME, kept[CUT], REPLACEME, 0),
        (MAP, kept[CUT], MAP, 0),
        (LORA, kept[CUT], None, options.heal),
        (BOTH, kept[CUT], MAP, options.heal),
        ("ours: LoRA for as many minutes", kept[CUT], None, None),
    ):
        if steps is None:
            steps = round(options.heal * minutes[BOTH] / minutes[LORA])
        model, _ = loading.load(options.model, dtype="float32")
        start = time.process_time()
        if fitted:
            linear.fold(model, block, changes[fitted])
        with tempfile.TemporaryDirectory() as folder, only_layers(model, keep):
            if steps:
                recipe = replace(options, heal=steps).recipe(model.num_parameters())
                lora.merge(model, heal(model, tokenizer, recipe, Path(folder) / "healed").adapter)
            minutes[method] = minutes[fitted] + (time.process_time() - start) / 60
            version = (*keep, fitted, steps)  # two tools may choose the same
            if version not in scores:
                scores[version] = sweep(model, tokenizer, [], options.scored())
        table = scores[version]
        tables.append(table.assign(method=method, kept=str(list(keep)), steps=steps))
    return pd.concat(tables).assign(minutes=lambda rows: rows.method.map(minutes))


def main(name: str = "smollm2-135m", limit: int = 32, heal: int = 16) -> None:
    torch.set_num_threads(1)
    depths = []
    for fraction in (0.1, 0.2, 0.3):
        size = round(fraction * registry.num_layers(name))
        options = Options(name, size, heal=heal, sequence=128, tasks="arc_easy", limit=limit)
        rows = measured(options)
        ours = rows[rows.method == BOTH].set_index("task").examples
        differences = []
        for row in rows.itertuples():
            apart = row.examples - ours[row.task]
            differences.append(weighted_mean(apart, row.weights))
        rows[["difference", "difference_error"]] = differences
        depths.append(rows.assign(model=name, layers=size, processor=machine.processor()))
        others = [pd.read_csv(FILE).query("model != @name")] if FILE.exists() else []
        pd.concat([*others, *depths])[COLUMNS].round(4).to_csv(FILE, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:2])
