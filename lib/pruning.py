"""Remove a block of consecutive layers: in memory, reversibly, or into an ordinary checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lib import storage
from lib.blocks import UNPRUNED, Block, similarity_block, simple_block
from lib.models import files
from lib.models.decoder import decoder_layers
from lib.models.layers import only_layers

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

    It is written next to `folder`, and gets its name when it is whole. Raises FileExistsError if
    the folder is there already, OSError if it cannot be written; nothing is left behind then.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: delete it or choose another folder.")
    try:
        with storage.atomic_folder(folder) as part:
            with dropped(model, block):
                model.save_pretrained(part)
                files.save_tokenizer(tokenizer, part)
    except Exception as error:  # of safetensors and tokenizers, each its own
        raise OSError(f"{folder} could not be written: {error}") from error
    return folder
