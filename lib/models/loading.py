"""Load any decoder-only model by name, whole or only the layers that stay."""

import ctypes
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import bitsandbytes
import torch
import transformers
from accelerate.utils import get_max_memory
from accelerate.utils.memory import clear_device_cache
from torch import nn
from transformers import BitsAndBytesConfig, GenerationConfig

from lib.blocks import UNPRUNED, Block
from lib.models import files, layers, machine
from lib.models.decoder import decoder_layers
from lib.models.files import Contents, contents_of, pin_revision, tokenizer
from lib.models.registry import ModelError, Source, resolve
from lib.models.shapes import NF4_BYTES


def load(
    name_or_path: str,
    *,
    quantization: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    block: Block = UNPRUNED,
    packed: bool = False,
):
    """Load (model, tokenizer): a key of MODELS, a hub id, a local folder or a .gguf file.

    quantization: None, or "nf4" (bitsandbytes, double quantisation, bf16 compute). On the CPU the
    4-bit values are then unpacked once into weights of `dtype`: the same function, as fast as any
    other model, and with gradients that can be trusted (bitsandbytes' CPU kernels have no
    backward once a forward without gradients has repacked the weights). packed: do not unpack.
    dtype: of the weights; by default that of `default_dtype`.
    device: "cpu", "cuda", …; by default the GPU if there is one.
    block: layers that are left out and never read; the model is that of `pruning.dropped`.
    Raises ModelError with one sentence for whatever cannot be had.
    """
    source, how = _checked(name_or_path, quantization, dtype, device)
    contents = contents_of(source)
    layers.check(contents.config)
    model = _assembled(contents, block.kept(contents.num_layers), **how, packed=packed)
    return model, tokenizer(name_or_path)


def one_layer_models(name_or_path: str, **options) -> Iterator[nn.Module]:
    """The model of each single layer l = 0, 1, …, L - 1 in turn, as `load` would make it.

    Each layer is read when its turn comes, and is taken out of its model when the next one's has;
    embeddings, norm and lm_head are read once and shared. options: quantization, dtype, device.
    """
    source, how = _checked(name_or_path, **options)
    contents, shared = contents_of(source), {}
    layers.check(contents.config)
    for l in range(contents.num_layers):
        contents = contents_of(source)  # opened anew, or all that was read would stay mapped
        model = _assembled(replace(contents, tensors=contents.tensors | shared), [l], **how)
        shared = {name: p.data for name, p in layers.outside(model).items()}
        del contents
        yield model
        del decoder_layers(model)[:]  # whoever still holds the model no longer holds the layer


_loaded = {}


def load_cached(name: str, quantization: str | None, dtype: str | None, block: Block = UNPRUNED):
    """(model, tokenizer) of `load`; the last one stays loaded.

    It is known by its identity: once the files have changed, they are read again.
    """
    wanted = (*weights_identity(name, quantization, dtype).items(), block)
    if wanted not in _loaded:
        release()  # first, so that two models are never held at once
        _loaded[wanted] = load(name, quantization=quantization, dtype=dtype, block=block)
    return _loaded[wanted]


def release() -> None:
    """Let go of the model that stays loaded, and of the memory that was kept for the next one."""
    _loaded.clear()
    clear_device_cache(garbage_collection=True)
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def fits(name: str, batch_tokens: int, quantization: str | None, dtype: str | None) -> bool:
    """Whether the whole model, and room for a batch, fit into the free memory.

    The model that stays loaded is let go first, since the next one takes its place.
    """
    if (*weights_identity(name, quantization, dtype).items(), UNPRUNED) in _loaded:
        return True
    source, how = _checked(name, quantization, dtype)
    if source.kind == "random":
        return True
    contents, element, on_cpu = contents_of(source), how["dtype"].itemsize, how["device"] == "cpu"
    four_bit = NF4_BYTES + (element if on_cpu else 0)  # on a CPU the values are unpacked
    needed = files.in_memory(contents.tensors, four_bit if quantization else element, element)
    release()
    free = get_max_memory()["cpu" if on_cpu else 0]
    if not on_cpu:  # blocks that PyTorch keeps count as used, but it can use them
        free += torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return needed + _room(contents.config, batch_tokens) * element < free


def _room(config, tokens: int) -> int:
    """Numbers that a batch needs: keys and values of all layers, and what one layer works with."""
    text = config.get_text_config(decoder=True)
    heads = getattr(text, "num_attention_heads", 1)
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    keys = text.num_hidden_layers * text.hidden_size * kv_heads // heads
    return tokens * (2 * keys + 16 * text.hidden_size)


def weights_identity(name: str, quantization: str | None, dtype: str | None) -> dict:
    """What a result's key says of a model: the very weights, and how they compute.

    Asks the hub for the commit of a model of which nothing is in the local cache yet.
    """
    device = default_device()
    return {
        "model": name,
        "revision": pin_revision(resolve(name)).revision,
        "dtype": dtype or default_dtype(device),
        "quantization": quantization,
        "device": device,
    }


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str) -> str:
    """On a CPU `machine.fastest`; bfloat16 on a GPU that computes in it, else float32."""
    if device == "cpu":
        return machine.fastest()
    emulated = str(device).startswith("cuda") and not torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return "float32" if emulated else "bfloat16"


def nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _checked(name: str, quantization=None, dtype=None, device=None) -> tuple[Source, dict]:
    """The source, and how its weights are wanted, with the defaults filled in."""
    if quantization not in (None, "nf4"):
        raise ModelError(f"Unknown quantization {quantization!r}: give None or 'nf4'.")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    device = device or default_device()
    if not isinstance(dtype, torch.dtype):
        try:
            dtype = getattr(torch, machine.checked(dtype) if dtype else default_dtype(device))
        except ValueError as error:
            raise ModelError(str(error)) from error
    return pin_revision(resolve(name)), {
        "quantization": quantization,
        "dtype": dtype,
        "device": device,
    }


@contextmanager
def _unpacked_by_blocks() -> Iterator[None]:
    """NF4 is unpacked block by block: of 64 numbers, which share a scale.

    On a CPU bitsandbytes 0.50 does it row by row, and takes wrong scales, without an error, where
    a row is no multiple of a block.
    """
    unpack = bitsandbytes.functional.dequantize_4bit

    def by_blocks(weight, state):
        blocks, rest = divmod(state.shape.numel(), state.blocksize)
        if rest:
            return unpack(weight, state)
        shape = state.shape
        with mock.patch.object(state, "shape", torch.Size((blocks, state.blocksize))):
            return unpack(weight, state).reshape(shape)

    with mock.patch.object(bitsandbytes.functional, "dequantize_4bit", by_blocks):
        yield


def _assembled(
    contents: Contents, keep: Sequence[int], quantization, dtype, device, packed: bool = False
):
    """The model of the layers `keep`, on the meta device first; only their tensors are read."""
    config = layers.pruned_config(contents.config, keep)
    one = layers.meta_model(layers.pruned_config(contents.config, [0]))
    tensors = files.slice_state_dict(contents.tensors, one, contents.num_layers, keep)
    quantized = {"quantization_config": nf4()} if quantization else {}
    model, found = type(one).from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        dtype=dtype,
        device_map=device,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **quantized,
    )
    for problem in ("missing_keys", "mismatched_keys"):
        if found[problem]:
            name = sorted(map(str, found[problem]))[0]
            raise ModelError(
                f"The tensors in {contents.folder} are not those of its config.json "
                f"({len(found[problem])} {problem.replace('_keys', '')}, such as {name})."
            )
    if quantization and device == "cpu" and not packed:
        with _unpacked_by_blocks():
            model = model.dequantize(dtype)
    model.name_or_path = model.config.name_or_path = str(contents.folder or "")
    if contents.folder and (contents.folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(contents.folder)
    return model.eval()
