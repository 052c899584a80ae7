"""Remove a block of consecutive layers: in memory, reversibly, or into an ordinary checkpoint."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from lib import paths
from lib.blocks import UNPRUNED, Block, similarity_block, simple_block
from lib.models import shapes
from lib.models.decoder import decoder_layers
from lib.models.layers import only_layers
from lib.models.shapes import Shape

__all__ = ["UNPRUNED", "Block", "dropped", "save_pruned", "similarity_block", "simple_block"]

_OTHER_WAY = (
    "mergekit and llama-quantize --prune-layers cut no lists that say what each layer does, as "
    "this model may have: turn the folder that pruning.save_pruned writes into a GGUF instead, "
    "with llama.cpp's convert_hf_to_gguf.py.\n"
)


@contextmanager
def dropped(model, block: Block) -> Iterator[None]:
    """The model without `block`: layers, configuration and layer indices follow the cut.

    Everything is restored on exit, also after an error. Inside, the model is an ordinary HF
    model of L - size layers: it generates with a cache and saves.
    """
    with only_layers(model, block.kept(len(decoder_layers(model)))):
        yield


def for_other_tools(
    block: Block, num_layers: int, name: str, shape: Shape | None
) -> dict[str, str]:
    """The same cut of model `name` as files that mergekit and llama.cpp read, by file name.

    A passthrough merge of the slices that stay (half-open ranges), and the list for llama.cpp's
    `llama-quantize --prune-layers`. Both number layers as we do, in the unpruned model. Neither
    cuts a list that says what each layer does: where the layers are not all of one kind, or the
    sizes of the model are not known (shape None), one file says which way works.
    """
    block.kept(num_layers)
    if shape is None or not shape.alike:
        return {"other-tools.txt": _OTHER_WAY}
    slices = [(0, block.start), (block.stop, num_layers)]
    lines = ["merge_method: passthrough", "dtype: bfloat16", "slices:"]
    for start, stop in slices:
        if start < stop:
            source = f"{{model: {json.dumps(name)}, layer_range: [{start}, {stop}]}}"
            lines.append(f"  - sources: [{source}]")
    return {
        "mergekit.yml": "\n".join(lines) + "\n",
        "llama-prune-layers.txt": ",".join(map(str, range(block.start, block.stop))) + "\n",
    }


def save_pruned(
    model, tokenizer, block: Block, folder: str | Path, add: Callable[[Path], None] | None = None
) -> Path:
    """Save the model without `block` as an ordinary HF checkpoint, and return its folder.

    It is written next to `folder`, loaded again and compared logit by logit with the pruned model
    in memory; only then does it get its name. The files of `for_other_tools` lie in it, and what
    `add` writes into the folder that it is given. Raises RuntimeError if the logits differ,
    FileExistsError if the folder is there already, OSError if it cannot be written; nothing is
    left behind then.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: delete it or choose another folder.")
    num_layers, name = len(decoder_layers(model)), model.name_or_path
    try:
        with paths.whole_folder(folder) as part:
            with dropped(model, block):
                model.save_pretrained(part)
                tokenizer.save_pretrained(part)
                _check_saved(model, block, part)
            shape = shapes.of_config(model.config.to_dict())
            for file, text in for_other_tools(block, num_layers, name, shape).items():
                (part / file).write_text(text, encoding="utf-8")
            if add:
                add(part)
    except (OSError, SafetensorError) as error:
        raise OSError(f"{folder} could not be written: {error}") from error
    return folder


def _check_saved(model, block: Block, folder: Path) -> None:
    """Raise RuntimeError if the checkpoint in `folder` is not the model, logit by logit."""
    reloaded = AutoModelForCausalLM.from_pretrained(folder, dtype=model.dtype).to(model.device)
    probe = torch.arange(48, device=model.device).reshape(2, 24) % model.config.vocab_size
    with torch.inference_mode():
        ours, theirs = (m(probe, use_cache=False).logits for m in (model, reloaded.eval()))
        if not torch.equal(ours, theirs):
            raise RuntimeError(f"The checkpoint of {block} has other logits than the pruned model.")
