"""The results of a call as a model card: `card.md.j2`, `table.md.j2`."""

import json
import shutil
from itertools import chain
from pathlib import Path

import numpy as np
from huggingface_hub import metadata_load
from jinja2 import Environment, FileSystemLoader
from transformers import AutoConfig

from lib.evaluation import weighted_mean
from lib.models import registry
from lib.models.files import Checkpoint
from lib.prune.options import Options

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
CARRIED = ["LICEN[CS]E*", "NOTICE*"]  # of the base model's files
PROCESSORS = ["*processor_config.json"]  # of images
KINDS = ("layer_types", "no_rope_layers")  # lists in config.json of what each layer does


def write(options: Options, checkpoint: Checkpoint, results: dict, weights: Path) -> dict:
    """Put a card beside the weights, and the record: of the model, and what `results` holds."""
    record = dict(results)
    versions, recipe = record["versions"], record.pop("recipe", None)
    left = AutoConfig.from_pretrained(weights)
    is_text_only = left.model_type != checkpoint.config.model_type
    if folder := checkpoint.folder:  # random weights come from none
        carried = CARRIED if is_text_only else CARRIED + PROCESSORS
        for file in chain.from_iterable(map(folder.glob, carried)):
            shutil.copy(file, weights)
    before, after = (config.get_text_config(decoder=True) for config in (checkpoint.config, left))
    record |= {  # with no path of this machine: it may be published
        "base": registry.hub_id(options.model),
        "licence": licence(options.model, folder),
        "revision": checkpoint.source.revision,
        "dtype": checkpoint.dtype,
        "n": {task: len(values) for task, (values, _) in versions[0]["scores"].items()},
        "is_text_only": is_text_only,
        "moved": [name for name in KINDS if is_moved(name, before, after)],
        "versions": [compared(version, versions[0]) for version in versions],
    }
    card = TEMPLATES.get_template("card.md.j2").render(
        record, options=options, recipe=recipe, config=left
    )
    (weights / "README.md").write_text(card, encoding="utf-8")
    (weights / "prune.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def licence(model: str, folder: Path) -> str | None:
    """Return the licence of a model: of a known one by our table, else as its own card says."""
    if known := registry.known(model):
        return known.licence
    card = folder / "README.md"
    metadata = metadata_load(card) if card.exists() else None
    return (metadata or {}).get("license")


def is_moved(name: str, before, after) -> bool:
    """Return whether a list of the layers' kinds no longer begins as the whole model's."""
    kinds, kept = (getattr(config, name, None) or [] for config in (before, after))
    return kinds[: len(kept)] != kept


def compared(version: dict, whole: dict) -> dict:
    """Return a version with each task's mean and error, and those of its difference to `whole`."""
    means, differences = {}, {}
    for task, pair in version["scores"].items():
        values, weights = np.array(pair)
        means[task] = weighted_mean(values, weights)
        differences[task] = weighted_mean(values - whole["scores"][task][0], weights)
    return version | {"scores": means, "to_whole": differences}


def table(record: dict) -> str:
    """Return the versions of a record as a table in Markdown."""
    return TEMPLATES.get_template("table.md.j2").render(record)
