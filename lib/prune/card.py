"""The results of a call as a model card: `card.md.j2`, `table.md.j2`."""

import json
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from transformers import AutoConfig

from lib.evaluation import weighted_mean
from lib.models import registry
from lib.models.files import Checkpoint
from lib.prune.options import Options

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
VERSIONS = ("whole", "cut", "mapped", "healed", "saved")


def write(options: Options, checkpoint: Checkpoint, results: dict, weights: Path) -> dict:
    """Put a card beside the weights, and the record: of the model, and what `results` holds."""
    record = dict(results)
    whole, recipe = record["whole"], options.recipe(record["cut"]["parameters"])
    versions = [(name, record.pop(name)) for name in VERSIONS if name in record]
    left = AutoConfig.from_pretrained(weights)
    record |= {  # with no path of this machine: it may be published
        "base": registry.hub_id(options.model),
        "licence": getattr(registry.known(options.model), "licence", None),
        "revision": checkpoint.source.revision,
        "dtype": options.dtype or checkpoint.dtype,
        "is_text_only": left.model_type != checkpoint.config.model_type,
        "keeps_pattern": keeps_pattern(checkpoint.config, left),
        "versions": [{"version": name} | compared(one, whole) for name, one in versions],
    }
    card = TEMPLATES.get_template("card.md.j2").render(record, options=options, recipe=recipe)
    (weights / "README.md").write_text(card, encoding="utf-8")
    (weights / "prune.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def keeps_pattern(whole, left) -> bool:
    """Return whether the kinds of layers still follow each other as in the whole model."""
    before, after = (
        getattr(config.get_text_config(decoder=True), "layer_types", None) or []
        for config in (whole, left)
    )
    return before[: len(after)] == after


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
