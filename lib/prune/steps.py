"""`prune`, and its steps: check, choose, map, heal, save."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from lib.blocks import UNPRUNED, Block, similarity_block, simple_block
from lib.evaluation import Task
from lib.healing import heal, linear, lora
from lib.models import files, layers, loading
from lib.models.decoder import decoder_layers
from lib.prune import card
from lib.prune.options import FITTED, MAX_TOKENS, TEXTS, Options
from lib.pruning import dropped, save_pruned
from lib.similarity import block_distances, calibration_batches
from lib.sweep import sweep


@dataclass(frozen=True)
class Work:
    """A call at work: its options, the tasks that it scores, its folder, and its results."""

    options: Options
    tasks: list[Task]
    folder: Path  # of the healing and the new weights
    results: dict = field(default_factory=dict)  # "block", "map", and the versions by name

    def load(self, name: str | Path):
        """Load a model to measure and heal it, by default in the format in which that is fast."""
        quantization = "nf4" if self.options.nf4 else None
        return loading.load(str(name), dtype=self.options.dtype, quantization=quantization)

    def score(self, version: str, model, tokenizer) -> None:
        """Note the size of a version of the model, and of each task the examples' scores."""
        print(f"{version} …", flush=True)
        table = sweep(model, tokenizer, [], self.tasks)
        self.results[version] = {
            "layers": len(decoder_layers(model)),
            "parameters": model.num_parameters(),
            "computed": str(model.dtype).removeprefix("torch."),
            "scores": {row.task: [row.examples, row.weights] for row in table.itertuples()},
        }


def prune(options: Options, out: str | Path) -> dict:
    """Write the smaller model into the folder `out`; return the record that lies there, too.

    Its `versions`, the whole, the cut, the mapped, the healed and the saved model: layers,
    parameters, GB of weights, and of each task [value, standard error], and those of the difference
    to the whole. With `nf4` all are packed. A healing that was killed goes on where it was.
    Raises ValueError, OSError or RuntimeError with one sentence; `out` is then as it was before.
    """
    out = Path(out).expanduser()
    if out.exists():
        raise FileExistsError(f"{out} exists: delete it, or choose another OUT.")
    checkpoint, tasks = check(options), options.scored()
    folder = Path(f"{out}.work")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            work = Work(options, tasks, folder / options.key(checkpoint.source.revision))
            block, change, adapter = cut(work)
            loading.release()  # before the original weights are read
            weights = save(work, block, change, adapter, options.dtype or checkpoint.dtype)
            work.score("saved", *work.load(weights))
            record = card.write(options, checkpoint, work.results, weights)
            weights.rename(out)
            return record
    except Timeout as error:
        raise OSError(f"Another call writes OUT={out}: wait for it, or choose another.") from error


def check(options: Options) -> files.Checkpoint:
    """Return the checkpoint of the model; its weights may be still on the hub.

    Raises ValueError for what cannot be cut, or has too short a context.
    """
    checkpoint = files.open_checkpoint(options.model, files.CONFIGURATION)
    layers.check(checkpoint.config)
    Block(options.start or 0, options.layers).kept(checkpoint.num_layers)
    text = checkpoint.config.get_text_config(decoder=True)
    limit, longest = (
        getattr(text, "max_position_embeddings", None),
        max(MAX_TOKENS, options.sequence),
    )
    if limit and longest > limit:
        raise ValueError(
            f"{options.model} reads at most {limit} tokens; texts here have up to {MAX_TOKENS}, "
            f"and SEQUENCE is {options.sequence}."
        )
    return checkpoint


def cut(work: Work) -> tuple[Block, torch.Tensor | None, Path | None]:
    """Choose the block, measure the cut, repair it; return the block, the map and the adapter."""
    options, change, adapter = work.options, None, None
    model, tokenizer = work.load(options.model)
    block = choose(options, model, tokenizer)
    work.results["block"] = asdict(block)
    work.score("whole", model, tokenizer)
    if options.repair:
        change = fit_map(work, model, tokenizer, block)
    with dropped(model, block):
        work.score("cut", model, tokenizer)
        if options.repair:
            linear.add_map_hook(model, block, change)
            work.score("mapped", model, tokenizer)
        if options.heal:
            adapter = heal_cut(work, model, tokenizer)
    return block, change, adapter


def choose(options: Options, model, tokenizer) -> Block:
    """Return the block to drop."""
    num_layers, size = len(decoder_layers(model)), options.layers
    if options.start is not None:
        return Block(options.start, size)
    if options.by == "simple":
        return simple_block(num_layers, size)
    if options.by == "exit":
        return Block(num_layers - size, size)
    texts = options.train_texts(TEXTS)
    if options.by == "similarity":
        batches = calibration_batches(texts, tokenizer, MAX_TOKENS, batch_tokens=2048)
        return similarity_block(block_distances(model, batches), size)
    blocks = [Block(start, size) for start in range(num_layers - size + 1)]
    task = Task("c4", tuple({"text": text, "max_tokens": MAX_TOKENS} for text in texts))
    losses = sweep(model, tokenizer, blocks, [task]).value[1:]  # the first is the whole model's
    return blocks[losses.argmin()]


def fit_map(work: Work, model, tokenizer, block: Block) -> torch.Tensor:
    """Return the linear map in place of `block`; note what it took and leaves."""
    if block.start == 0:
        raise ValueError("REPAIR=map needs a layer before the block: choose it with START.")
    linear.projection(model, block.start - 1)  # raises where a map cannot be folded
    texts = work.options.train_texts(FITTED)
    batches = calibration_batches(texts, tokenizer, MAX_TOKENS, batch_tokens=2048)
    maps = linear.fitted_all(model, [block], ["folded"], batches)
    mapped, work.results["map"] = maps[block]["folded"]
    return mapped.change


def heal_cut(work: Work, model, tokenizer) -> Path:
    """Heal the cut; return the adapter. Raises RuntimeError if that does not end well."""
    recipe = work.options.recipe(model.num_parameters())
    healed = heal(model, tokenizer, recipe, work.folder / "healing")
    if healed.status != "ok":
        raise RuntimeError(
            f"The healing ended as {healed.status}: choose a lower LR, or a smaller SEQUENCE."
        )
    with lora.load_lora(model, healed.adapter):
        work.score("healed", model, tokenizer)
    return healed.adapter


def save(work: Work, block: Block, change, adapter: Path | None, dtype: str) -> Path:
    """Write the original weights with all repairs; return their folder."""
    options, weights = work.options, work.folder / "weights"
    if not weights.exists():
        model, tokenizer = loading.load(options.model, dtype=dtype, device="cpu", block=block)
        if options.repair:
            linear.fold(model, block, change)
        if adapter:
            lora.merge(model, adapter)
        save_pruned(model, tokenizer, UNPRUNED, weights)
    return weights
