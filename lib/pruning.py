"""Remove a block of consecutive layers: in memory, reversibly, or into an ordinary checkpoint."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
import transformers

from . import storage
from .blocks import UNPRUNED, Block, similarity_block, simple_block
from .models import files
from .models.decoder import decoder_layers, sample_tokens
from .models.layers import only_layers

__all__ = ["UNPRUNED", "Block", "dropped", "save_pruned", "similarity_block", "simple_block"]

# a saved model's logits may be so much apart from those in memory, as a share of their length
CPU_TOLERANCE = 0.01
GPU_TOLERANCE = 0.1  # which computes in another order than the CPU that reads the files


@contextmanager
def dropped(model, block: Block) -> Iterator[Callable[[], AbstractContextManager]]:
    """The model without `block`: layers, configuration and layer indices follow the cut.

    Everything is restored on exit, also after an error. Inside, the model is an ordinary HF
    model of L - size layers: it generates with a cache and saves. Yields what brings the block back
    for a while, as in `with dropped(model, block) as whole: … with whole(): …`.
    """
    with only_layers(model, block.kept(len(decoder_layers(model)))) as cut:
        yield cut.undone


def save_pruned(model, tokenizer, block: Block, folder: str | Path) -> Path:
    """Save the model without `block` as an ordinary HF checkpoint, and return its folder.

    Its config.json is that of the files that the model was loaded from, with what the cut changed.
    It is written next to `folder`, read again by plain transformers, and compared with the model in
    memory; only then does it get its name. Raises RuntimeError if it is another model,
    FileExistsError if the folder is there already, OSError if it cannot be written; nothing is left
    behind then.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: delete it or choose another folder.")
    with storage.atomic_folder(folder) as part, dropped(model, block):
        try:
            model.save_pretrained(part)
            files.save_tokenizer(tokenizer, part)
        except Exception as error:  # of safetensors and tokenizers, each its own
            raise OSError(f"{folder} could not be written: {error}") from error
        base = Path(model.name_or_path)
        if (base / "config.json").exists():
            files.keep_configuration(base, part)
        _check_saved(model, part)
    return folder


def _check_saved(model, folder: Path) -> None:
    """Raise RuntimeError if plain transformers reads another model in `folder`.

    It reads on the CPU, where tensors stay in the files: a second model takes no memory. Weights
    that are packed in 4 bits are not compared.
    """
    if getattr(model, "is_quantized", False):
        return
    config = transformers.AutoConfig.from_pretrained(folder)
    saved = type(model).from_pretrained(folder, config=config, dtype=model.dtype).eval()
    ids = sample_tokens(model, 128).reshape(2, 64)
    was_training = model.training
    with torch.no_grad():
        expected = model.eval()(ids, use_cache=False).logits.float().cpu()
        difference = saved(ids.cpu(), use_cache=False).logits.float() - expected
    model.train(was_training)
    tolerance = CPU_TOLERANCE if model.device.type == "cpu" else GPU_TOLERANCE
    if not difference.norm() <= tolerance * expected.norm():  # nor if it is no number
        raise RuntimeError(
            f"The saved checkpoint computes otherwise than the {type(model).__name__} in memory, "
            f"so it is not kept: transformers {transformers.__version__} does not write, or read, "
            "it rightly."
        )
