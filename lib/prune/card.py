"""The results of a call as a model card: `card.md.j2`, `table.md.j2`."""

import json
import re
import shlex
import subprocess
from dataclasses import dataclass, fields
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path

import numpy as np
import yaml
from huggingface_hub import metadata_load
from jinja2 import Environment, FileSystemLoader
from transformers import AutoConfig

from .. import paths, storage
from ..evaluation import weighted_mean
from ..models import files, registry
from ..models.files import Checkpoint
from ..tasks import LM_EVAL
from .options import TASKS, Options

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
PROCESSORS = "*processor_config.json"  # of images
KINDS = ("layer_types", "no_rope_layers")  # lists in config.json of what each layer does
LICENCE = ("license", "license_name", "license_link")  # entries of a front matter
FAMILIES = storage.rows(Path(files.__file__).with_name("families.csv"))  # what was tried of each
LLAMA_CPP = storage.rows(Path(__file__).with_name("llama_cpp.csv"))  # what it makes of cut models


@dataclass(frozen=True)
class Base:
    """What a card tells of the base model, read before anything is computed."""

    name: str
    licence: dict  # entries of the front matter; none where it is not known
    files: dict[str, bytes]  # what goes with the weights, by its place: licences, a processor
    unread: list[str]  # sentences on what could not be read


def read_base(model: str, folder: Path | None) -> Base:
    """Read what lies beside the weights; what cannot be read is unknown, and said to be so."""
    name = registry.canonical(model).split("/")[-1]
    licence, carried, unread = {}, {}, []
    try:
        licence = _licence(model, folder)
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or storage.first_line(error)
        unread.append(f"The licence in the README.md of {name} cannot be read ({reason}).")
    for pattern in [*files.LICENCES, PROCESSORS] if folder else []:
        for file in [*folder.glob(pattern), *folder.glob(f"{pattern}/**/*")]:
            place = file.relative_to(folder).as_posix()
            try:
                if not file.is_dir():
                    carried[place] = file.read_bytes()
            except OSError as error:
                unread.append(f"{place} of {name} cannot be read ({error.strerror}).")
    return Base(name, licence, carried, unread)


def _licence(model: str, folder: Path | None) -> dict:
    """Return the licence of a model: of a known one by our table, else as its own card says."""
    if known := registry.known(model):
        name = known.licence.lower().replace(" community", "").replace(" ", "")
        return {} if name in ("none", "tongyiqianwen") else {"license": name}
    card = folder and folder / "README.md"
    entries = (metadata_load(card) if card and card.exists() else None) or {}
    return {name: entries[name] for name in LICENCE if entries.get(name)}


def write(
    options: Options, checkpoint: Checkpoint, base: Base, results: dict, weights: Path
) -> dict:
    """Put a card beside the weights, and the record: of the model, and what `results` holds."""
    versions = results["versions"]
    left = AutoConfig.from_pretrained(weights)
    is_text_only = left.model_type != checkpoint.config.model_type
    for place, content in base.files.items():
        if not (is_text_only and fnmatch(place, PROCESSORS)):
            (weights / place).parent.mkdir(exist_ok=True, parents=True)
            (weights / place).write_bytes(content)
    before, after = (config.get_text_config(decoder=True) for config in (checkpoint.config, left))
    record = results | {  # with no path of this machine: it may be published
        "base": registry.hub_id(options.model),
        "licence": base.licence,
        "dtype": checkpoint.dtype,
        "n": {task: len(values) for task, (values, _) in versions[0]["scores"].items()},
        "is_text_only": is_text_only,
        "moved": [name for name in KINDS if is_moved(name, before, after)],
        "versions": [compared(version, versions[0]) for version in versions],
        "keeps_config": bool(checkpoint.folder) and not checkpoint.is_qwen1,
        "command": command(options, base.name),
        "software": software(),
    }
    card = render(record, options, base, left)
    (weights / "README.md").write_text(card, encoding="utf-8")
    entries = json.dumps(record, indent=1, default=str)  # a front matter may have a date
    (weights / "prune.json").write_text(entries, encoding="utf-8")
    return record


def render(record: dict, options: Options, base: Base, config) -> str:
    """Return the card. config: of the model that was written."""
    front = {"base_model": record["base"]} if record["base"] else {}
    front |= base.licence | {"library_name": "transformers"}
    front["tags"] = ["pruned", "healed"] if options.heals else ["pruned"]
    text, layers = config.get_text_config(decoder=True), record["versions"][0]["layers"]
    rows = [row for row in LLAMA_CPP if row["family"] == text.model_type]
    by_4 = {row["family"]: row["transformers_4"] for row in FAMILIES}.get(text.model_type, "")
    return TEMPLATES.get_template("card.md.j2").render(
        record,
        front=yaml.safe_dump(front, sort_keys=False, allow_unicode=True),
        options=options,
        table_of_sizes=size_table(record["sizes"]) if record.get("sizes") else "",
        asked=TASKS,
        name=base.name,
        unread=base.unread,
        config=config,
        text=text,
        read_by_4="" if by_4.startswith("not tried") else by_4,
        # a row of this number of layers comes before one of any number
        llama=max(
            (row for row in rows if row["layers"] in ("", str(layers))),
            key=lambda row: row["layers"],
            default=None,
        ),
    )


def command(options: Options, name: str) -> str:
    """Return the command that repeats a call, with no path of this machine."""
    model, given = registry.hub_id(options.model) or name, {}
    for option in fields(options)[1:]:
        value = getattr(options, option.name)
        if value != option.default or option.name in ("seed", "limit"):
            given[option.name] = value
    if "tasks" in given:
        given["tasks"] = re.sub(rf"{LM_EVAL}\S*/", LM_EVAL, options.tasks)
    if options.texts:
        given["texts"] = options.texts.split("/")[-1]
    if not paths.IS_CHECKOUT:
        words = [f"--{name} {shlex.quote(f'{value}')}" for name, value in given.items()]
        return " ".join(["deeper-layers prune", shlex.quote(model), "smaller", *words])
    given = {"model": model, "out": "smaller"} | given
    words = [f"{name.upper()}={shlex.quote(f'{value}')}" for name, value in given.items()]
    return " ".join(["make prune", *words])


def software() -> dict[str, str]:
    """Return the versions of what computed; ours also by its commit, in a checkout."""
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    git = ["git", f"--git-dir={paths.ROOT}/.git", "rev-parse", "--short", "HEAD"]
    try:
        own = subprocess.check_output(git, text=True, stderr=subprocess.DEVNULL).strip()
    except (OSError, subprocess.CalledProcessError):  # an installed package
        own = metadata.version("deeper-layers")
    return versions | {"deeper-layers": own}


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


def size_table(rows: list[dict]) -> str:
    """Return the table of sizes in Markdown."""
    last, columns = rows[-1], []
    for name in last:
        if f"{name}_error" in last and "rise" not in name:
            version, task = name.split("_", 1)
            columns.append((name, version, task))
    return TEMPLATES.get_template("sizes.md.j2").render(rows=rows, columns=columns)
