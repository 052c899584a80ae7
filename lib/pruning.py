"""Remove a block of consecutive layers: in memory, reversibly, or into an ordinary checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lib import storage
from lib.blocks import UNPRUNED, Block, similarity_block, simple_block
from lib.models import files, loading
from lib.models.decoder import decoder_layers
from lib.models.layers import only_layers
from lib.models.registry import ModelError

__all__ = ["UNPRUNED", "Block", "dropped", "save_pruned", "similarity_block", "simple_block"]


@contextmanager
def dropped(model, block: Block) -> Iterator[None]:
    """The model without `block`: layers, configuration and layer indices follow the cut.

    Everything is restored on exit, also after an error. Inside, the model is an ordinary HF
    model of L - size layers: it generates with a cache and saves.
    """
    with only_layers(model, block.kept(len(decoder_layers(model)))):
        yield


def save_pruned(model, tokenizer, block: Block, folder: str | Path) -> Path:
    """Save the model without `block` as an ordinary HF checkpoint, and return its folder.

    It is written next to `folder`, loaded again and compared, bit by bit, with the pruned model
    in memory; only then does it get its name. Raises RuntimeError or ModelError if they differ,
    FileExistsError if the folder is there already, OSError if it cannot be written; nothing is left
    behind then.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: delete it or choose another folder.")
    try:
        with storage.atomic_folder(folder) as part:
            with dropped(model, block):
                model.save_pretrained(part)
                files.save_tokenizer(tokenizer, part)
                _check_saved(model, block, part)
    except (RuntimeError, ModelError):
        raise
    except Exception as error:  # of safetensors and tokenizers, each its own
        raise OSError(f"{folder} could not be written: {error}") from error
    return folder


def _check_saved(model, block: Block, folder: Path) -> None:
    """Raise RuntimeError if the checkpoint in `folder` is not the model, bit by bit.

    The model waits in the CPU's memory meanwhile: a GPU may have no room for two. Where its norms
    are not fused (it was not loaded by `loading`), those of the copy are not either.
    """
    device = model.device
    probe = torch.arange(48, device=device).reshape(2, 24) % model.config.vocab_size
    with torch.no_grad():  # in inference mode, weights that move could not be trained any more
        expected = model(probe, use_cache=False).logits
        model.to("cpu")
        try:
            saved, _ = loading.load(str(folder), dtype=model.dtype, device=str(device))
            for part, copy in zip(model.modules(), saved.modules(), strict=True):
                if "forward" not in vars(part):
                    vars(copy).pop("forward", None)
            same = torch.equal(saved(probe, use_cache=False).logits, expected)
            del saved
        finally:
            model.to(device)
    if not same:
        raise RuntimeError(f"The checkpoint of {block} computes otherwise than the pruned model.")
