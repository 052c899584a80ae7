"""The steps of `prune`: check, choose, map, heal, save."""

import math
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, groupby
from pathlib import Path

import huggingface_hub.constants
import numpy as np
from filelock import FileLock, Timeout

from ..blocks import UNPRUNED, Block
from ..data import chats, sets
from ..evaluation import SIGNAL, Task, weighted_mean
from ..healing import heal, linear, lora, packing
from ..models import files, layers, loading, registry
from ..models import sizes as model_sizes
from ..models.decoder import decoder_config, decoder_layers, window
from ..pruning import dropped, save_pruned
from ..similarity import block_distances, calibration_batches
from ..sweep import baseline_scores, check_rows, sweep
from . import far
from .options import BATCH_TOKENS, FITTED, JUDGING, MAX_TOKENS, TEXTS, WATCHED, Options

SPLITS = ("train", "validation")
SIGNIFICANT = 1.96  # standard errors
ADAPTERS = 10  # of this size on the disk: itself, and three checkpoints with two moments


@dataclass
class Work:
    """A call at work: what it is told, and what its steps have noted so far."""

    options: Options
    tasks: list[Task]  # to score, the loss first; `ask_whole` drops those that cannot be answered
    folder: Path  # of the healing and the new weights
    far_tasks: dict[str, Task] = field(default_factory=dict)  # of `far.tasks`, once a model is read
    # for the model card: versions (of `score`), and unasked, block, map, healing
    results: dict = field(default_factory=lambda: {"versions": []})

    def load(self, name: str | Path):
        """Load a model to measure and heal it, in the format in which that is fast."""
        quantization = "nf4" if self.options.nf4 else None
        return loading.load(str(name), quantization=quantization)

    def ask_whole(self, model, tokenizer) -> None:
        """Drop the tasks whose questions the whole model cannot answer; note its scores of these.

        It needs a score SIGNAL standard errors above the best one without reading the question.
        """
        vocabulary, unasked = decoder_config(model).vocab_size, {}
        for task in self.tasks:
            if task.spec.unit != "accuracy":
                continue
            print(f"{task.spec.label}, the whole model …", flush=True)
            score = score_as_it_is(model, tokenizer, task)
            baselines = baseline_scores(model, tokenizer, task, BATCH_TOKENS)
            floor = max(task.chance(vocabulary), *baselines.values())
            if score.value - floor < SIGNAL * score.standard_error:
                unasked[task.name] = {
                    "label": task.spec.label,
                    "value": score.value,
                    "standard_error": score.standard_error,
                    "n": score.n,
                    "floor": floor,
                }
        self.tasks = [task for task in self.tasks if task.name not in unasked]
        self.results["unasked"] = unasked

    def score(self, model, tokenizer, versions: dict[str, Block]) -> None:
        """Note the size of versions of the model, and of each task the examples' scores.

        versions: the block that is left out, by the name of the version; the first one is whole.
        What they share is computed once. Far into texts only that first one is scored, as it takes
        long.
        """
        print(f"{', '.join(versions)} …", flush=True)
        with linear.reading_ffn(model, versions.values()):
            table = sweep(model, tokenizer, versions.values(), self.tasks)
        far_scores = {}
        for name, task in self.far_tasks.items():
            score = score_as_it_is(model, tokenizer, task)
            far_scores[name] = [score.examples, score.weights]
        for place, (version, block) in enumerate(versions.items()):
            rows = table[place :: len(versions)].itertuples()
            with dropped(model, block):
                sizes = {
                    "layers": len(decoder_layers(model)),
                    "parameters": model.num_parameters(),
                    "computed": str(model.dtype).removeprefix("torch."),
                }
            scores = {row.task: [row.examples, row.weights] for row in rows}
            scores |= far_scores if block == UNPRUNED else {}
            self.results["versions"].append({"version": version} | sizes | {"scores": scores})


def check_gb(gb: float, checkpoint: files.Checkpoint) -> None:
    """Raise ValueError, before weights are read, where the whole model fits, or no layer does."""
    parameters = model_sizes.parameters(layers.meta_model(checkpoint.config))
    gigabytes = checkpoint.bytes_per_weight / 1e9
    whole = (parameters.outside + sum(parameters.layers)) * gigabytes
    least = (parameters.outside + min(parameters.layers)) * gigabytes
    if whole <= gb:
        raise ValueError(f"GB={gb:g}: the whole model has {whole:.3g} GB, so nothing has to go.")
    if gb < least:
        raise ValueError(f"No size fits GB={gb:g}: with one layer it still has {least:.3g} GB.")


def check_out(options: Options, out: Path) -> None:
    """Raise ValueError or OSError where the smaller model may not be written."""
    source, place = registry.resolve(options.model), out.resolve()
    base, is_local = Path(source.location), source.kind in ("folder", "gguf")
    if is_local and (place.is_relative_to(base) or base.is_relative_to(place)):
        raise ValueError(
            f"OUT={out} is MODEL, or lies in its folder, or holds it: choose another OUT."
        )
    if out.exists():
        raise FileExistsError(f"{out} exists: delete it, or choose another OUT.")
    if out.is_symlink():
        raise FileExistsError(f"OUT={out} is a link to nothing: choose another OUT.")


@contextmanager
def work_folder(out: Path) -> Iterator[Path]:
    """Make OUT.work, and let no other call write there. Raises OSError if that cannot be."""
    folder = Path(f"{out}.work")
    lock = FileLock(folder / "lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise OSError(f"Another call writes OUT={out}: wait for it, or choose another.") from error
    except OSError as error:
        raise OSError(
            f"OUT={out} cannot be written ({error.strerror}): choose another OUT."
        ) from error
    with lock:
        yield folder


def check_room(options: Options, checkpoint: files.Checkpoint, out: Path) -> None:
    """Raise OSError where a disk has no room for the weights: those of the hub, and the new ones.

    And for a healing: adapters, each with two moments in each of its checkpoints.
    """
    dtype = checkpoint.config.dtype
    number = dtype.itemsize if dtype else 2  # bytes
    model = layers.meta_model(checkpoint.config)
    gone, left = decoder_layers(model)[: options.layers], decoder_layers(model)[options.layers :]
    whole = model.num_parameters()
    smaller = whole - sum(p.numel() for p in gone.parameters())
    needed = [(out.parent, smaller * number)]
    if options.heals:
        matrices = [p for p in left.parameters() if p.ndim == 2]
        of_adapter = options.rank * 4 * sum(sum(p.shape) for p in matrices)
        needed.append((out.parent, ADAPTERS * of_adapter))
    if checkpoint.source.kind == "hub" and not any(checkpoint.folder.glob("*.safetensors")):
        cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
        needed.append((cache, whole * number))
    disks = {}  # by its number, a folder on it and the bytes that are needed there
    for folder, size in needed:
        place = _existing(folder)
        disk = place.stat().st_dev
        first, before = disks.get(disk, (place, 0))
        disks[disk] = first, before + size
    for place, size in disks.values():
        free = shutil.disk_usage(place).free
        if size > free:
            raise OSError(
                f"{size / 1e9:.3g} GB are needed in {place}, and {free / 1e9:.3g} GB "
                "are free: make room there, or choose another OUT."
            )


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there already."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def check(options: Options) -> files.Checkpoint:
    """Return the checkpoint of the model; its weights may be still on the hub.

    Raises ValueError for what cannot be cut, has too short a context, or cannot read the chats.
    """
    needed = files.CONFIGURATION + files.BESIDE
    needed += files.TOKENIZER if options.reads_chats else []
    checkpoint = files.open_checkpoint(options.model, needed)
    layers.check(checkpoint.config)
    Block(options.start or 0, options.layers or 1).kept(checkpoint.num_layers)
    limit, most = window(checkpoint.config), max(MAX_TOKENS, options.sequence)
    if limit and limit < most:
        what = "SEQUENCE is" if most > MAX_TOKENS else "texts here have up to"
        raise ValueError(f"{options.model} reads at most {limit} tokens; {what} {most}.")
    if options.reads_chats:
        texts = [text for split in SPLITS for text in sets.user_texts(split, options.texts)]
        chats.check(texts, checkpoint.tokenizer(), options.model)
    return checkpoint


def cut(work: Work) -> tuple[Block, Path | None]:
    """Choose the block, repair the cut, measure it; return the block, and the adapter if any.

    The block is a `linear.Mapped` if a map repairs the cut.
    """
    options = work.options
    model, tokenizer = work.load(options.model)
    check_reading(work, model, tokenizer)
    work.far_tasks = far.tasks(options, model.config, tokenizer)
    work.ask_whole(model, tokenizer)
    blocks = choose(options, model, tokenizer)
    block = fit_map(work, model, tokenizer, blocks) if options.repair else blocks[0]
    work.results["block"] = {"start": block.start, "size": block.size}
    versions = {"whole": UNPRUNED, "cut": Block(block.start, block.size)}
    if options.repair:
        versions["mapped"] = block
    work.score(model, tokenizer, versions)
    if options.repair:
        check_map(work)
    adapter = heal_cut(work, model, tokenizer, block) if options.heals else None
    return block, adapter


def check_reading(work: Work, model, tokenizer) -> None:
    """Raise ValueError, before anything long is computed, where this model cannot read the texts.

    Or where its loss is not finite.
    """
    options, (loss, *_) = work.options, work.tasks
    read = list(work.tasks)
    if options.start is None or options.repair:
        read.append(loss_of(options.train_texts(FITTED + JUDGING), options.scored_tokens))
    for task in read:
        try:
            rows = task.rows(tokenizer)
        except ValueError as error:
            raise ValueError(f"{error} TASKS=c4 asks no questions.") from error
        if options.reads_chats and not any(len(row.tokens) for row, *_ in rows):
            raise ValueError(
                f"No answer of TEXTS={options.texts} begins within the first "
                f"{options.scored_tokens} tokens of its chat; with SEQUENCE more are read."
            )
        check_rows(model, list(chain.from_iterable(rows)), task.name)
    if options.heals:
        recipe = options.recipe(model.num_parameters(), model.device.type == "cpu")
        packing.training_sequences(tokenizer, replace(recipe, steps=1))
    value = score_as_it_is(model, tokenizer, first_texts(loss, tokenizer, 1)).value
    if not math.isfinite(value):
        raise ValueError(
            f"The loss of {options.model} is {value}: its weights are damaged, or too large for "
            f"{model.dtype}."
        )


def first_texts(loss: Task, tokenizer, count: int) -> Task:
    """Return the loss on its first texts that have a token to predict, so many at most."""
    pairs = zip(loss.examples, loss.rows(tokenizer), strict=True)
    examples = [example for example, (row, *_) in pairs if len(row.tokens)]
    return replace(loss, examples=tuple(examples[:count]))


def score_as_it_is(model, tokenizer, task: Task):
    """Return the row of `sweep` of the model as it is now: value, standard_error, n, …"""
    (row,) = sweep(model, tokenizer, [], [task]).itertuples()
    return row


def choose(options: Options, model, tokenizer) -> list[Block]:
    """Return the block to drop; of BY=map each one that may be."""
    return choose_each(options, model, tokenizer, [options.layers])[options.layers]


def choose_each(options: Options, model, tokenizer, sizes: Iterable[int]) -> dict[int, list[Block]]:
    """Return the block to drop, by its size; of BY=map each one that may be.

    With REPAIR=map, only blocks after a layer that a map can be folded into.
    """
    num_layers = len(decoder_layers(model))
    starts = range(num_layers) if options.start is None else [options.start]
    blocks = [Block(start, size) for size in sizes for start in starts]
    blocks = [block for block in blocks if block.stop <= num_layers]
    if options.repair:
        blocks = with_foldable_map(model, blocks)
    by_size = {size: list(alike) for size, alike in groupby(blocks, lambda block: block.size)}
    if options.start is not None or options.by == "map":
        return by_size
    texts = options.train_texts(TEXTS)
    if options.by == "similarity":
        batches = calibration_batches(
            texts, tokenizer, MAX_TOKENS, BATCH_TOKENS, cut_at_random=True
        )
        distances = block_distances(model, batches)

    def best(blocks: list[Block]) -> Block:
        if options.by == "loss":
            return of_least_loss(model, tokenizer, blocks, texts, options.scored_tokens)
        return blocks[np.nanargmin([distances.of(block) for block in blocks])]

    return {size: [best(blocks)] for size, blocks in by_size.items()}


def with_foldable_map(model, blocks: list[Block]) -> list[Block]:
    """Return those of `blocks` whose map can be folded. Raises ValueError if there are none."""
    foldable = set()
    for start in sorted({block.start for block in blocks}):
        try:
            linear.projection(model, start - 1)
            foldable.add(start)
        except ValueError as error:
            reason = error
    if not foldable:
        raise ValueError(f"{reason} Leave out REPAIR=map.") from reason
    return [block for block in blocks if block.start in foldable]


def loss_of(texts: list[chats.Text], max_tokens: int) -> Task:
    """Return the task of the loss on these texts."""
    examples = [{"text": text, "max_tokens": max_tokens} for text in texts]
    return Task("c4", tuple(examples))


def of_least_loss(model, tokenizer, blocks: list[Block], texts: list, max_tokens: int) -> Block:
    """Return the block without which, or with whose map, the model has the least loss."""
    with linear.reading_ffn(model, blocks):
        losses = sweep(model, tokenizer, blocks, [loss_of(texts, max_tokens)]).value
    return blocks[np.nanargmin(losses[1:])]  # the first one is of the whole model


def fit_map(work: Work, model, tokenizer, blocks: list[Block]) -> linear.Mapped:
    """Return a block with a linear map in its place; of several, that of the least loss.

    Texts that judge between blocks are not fitted on, and so the map that is taken is not the one
    that has learnt them best. Notes what the map took and leaves, and how many texts that were.
    """
    options = work.options
    if len(blocks) == 1:
        fitting, judging = options.train_texts(FITTED), []
    else:
        texts = options.train_texts(FITTED + JUDGING)
        fitting, judging = texts[:-JUDGING], texts[-JUDGING:]
    maps = fitted_maps(model, tokenizer, blocks, fitting)
    mapped = next(iter(maps))
    if judging:
        mapped = of_least_loss(model, tokenizer, list(maps), judging, options.scored_tokens)
    counts = {"fit_texts": len(fitting), "judging_texts": len(judging)}
    work.results["map"] = maps[mapped] | counts
    return mapped


def fitted_maps(model, tokenizer, blocks: list[Block], texts: list) -> dict[linear.Mapped, dict]:
    """Return each block with the map that these texts fit, and what `linear.fitted_all` notes."""
    batches = calibration_batches(texts, tokenizer, MAX_TOKENS, BATCH_TOKENS)
    fitted = linear.fitted_all(model, blocks, ["folded"], batches)
    return dict(maps["folded"] for maps in fitted.values())


def check_map(work: Work) -> None:
    """Raise ValueError where the map makes the cut worse, on texts that it was not fitted on.

    It may be so where few texts are alike: a map of all tokens in chats need not fit the answers.
    """
    losses = {version["version"]: version["scores"]["c4"] for version in work.results["versions"]}
    (mapped, weights), (cut, _) = np.array(losses["mapped"]), np.array(losses["cut"])
    rise, error = weighted_mean(mapped - cut, weights)
    if rise > SIGNIFICANT * error:
        raise ValueError(
            f"The linear map raises the loss after the cut by {rise:.2f} ± {error:.2f} nats: leave "
            "out REPAIR=map, or choose another block by BY=map or START."
        )


NOTED = ("real_tokens", "targets", "epochs", "held_out")  # of a healing, for the card
UNHEALED = {  # what to do, by the status of a healing
    "diverged": "ended as diverged: choose a lower LR",
    "oom": "needs more memory than is free: drop more layers, or run it on another device",
}


def heal_cut(work: Work, model, tokenizer, block: Block) -> Path:
    """Heal the cut; return the adapter. Raises RuntimeError if that does not end well."""
    recipe = work.options.recipe(model.num_parameters(), model.device.type == "cpu")  # whole
    held_out = first_texts(work.tasks[0], tokenizer, WATCHED)
    with dropped(model, block) as whole:
        if work.options.repair:
            linear.add_map_hook(model, block, block.change)
        healed = heal(
            model,
            tokenizer,
            recipe,
            work.folder / "healing",
            micro_batch=work.options.sequences_at_once,
            held_out_loss=lambda: score_as_it_is(model, tokenizer, held_out).value,
            whole=whole,
        )
    if healed.status != "ok":
        raise RuntimeError(f"The healing {UNHEALED[healed.status]}.")
    facts = {name: getattr(healed, name) for name in NOTED}
    facts |= {"source": "", "held_out_texts": len(held_out.examples)}  # with no path
    work.results["healing"] = asdict(recipe) | facts
    return healed.adapter


def save(work: Work, block: Block, adapter: Path | None, dtype: str) -> Path:
    """Write the original weights with all repairs; return their folder."""
    options, weights = work.options, work.folder / "weights"
    if not weights.exists():
        model, tokenizer = loading.load(options.model, dtype=dtype, device="cpu", block=block)
        if options.repair:
            linear.fold(model, block, block.change)
        if adapter:
            lora.merge(model, adapter)
        save_pruned(model, tokenizer, UNPRUNED, weights)
    return weights
