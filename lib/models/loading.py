"""Load any decoder-only model by name, whole or without a block of layers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from unittest import mock

import torch
import transformers
from accelerate.utils.memory import clear_device_cache
from transformers import BitsAndBytesConfig, GenerationConfig

from ..blocks import UNPRUNED, Block
from . import files, layers, machine
from .decoder import get_decoder
from .files import Checkpoint, open_checkpoint
from .registry import ModelError


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

    quantization: None, or "nf4" (bitsandbytes, double quantisation, 16-bit compute). On the CPU
    the 4-bit values are then unpacked once into weights of `dtype`: the same function, as fast as
    any other model, and with gradients that can be trusted (bitsandbytes' CPU kernels have no
    backward once a forward without gradients has repacked the weights). So they are on a GPU with
    much room, since unpacking them in each pass takes time. packed: do not unpack.
    dtype: of the weights; by default that of `default_dtype`.
    device: "cpu", "cuda", …; by default the GPU if there is one.
    block: layers that are left out and never read; the model is that of `pruning.dropped`.
    Its weights require no gradients: a pass keeps nothing that only they would need.
    Raises ModelError with one sentence for whatever cannot be had. A model in float16 raises one
    when its states are too large for that format.
    """
    if quantization not in (None, "nf4"):
        raise ModelError(f"Unknown quantization {quantization!r}: give None or 'nf4'.")
    if quantization and not find_spec("bitsandbytes"):
        raise ModelError("NF4 needs bitsandbytes: pip install bitsandbytes, or leave NF4 out.")
    device = device or default_device()
    if not isinstance(dtype, torch.dtype):
        dtype = getattr(torch, machine.checked(dtype or default_dtype(device)))
    checkpoint = open_checkpoint(name_or_path)
    layers.check(checkpoint.config)
    keep = block.kept(checkpoint.num_layers)
    tokenizer = checkpoint.tokenizer()
    config = nf4(dtype) if quantization else None
    model = _read(checkpoint, keep, dtype=dtype, device_map=device, quantization_config=config)
    if quantization and not packed and _unpacks(checkpoint.config, dtype, device):
        with _unpacked_by_blocks():
            model = model.dequantize(dtype)
    if model.device.type != "cpu":
        from ..gpu import norms

        norms.fuse_norms(model)
    if dtype == torch.float16:
        get_decoder(model).register_forward_hook(_check_finite)
    return model.eval().requires_grad_(False), tokenizer


_loaded = {}


def load_cached(name: str, quantization: str | None, dtype: str | None, block: Block = UNPRUNED):
    """Return (model, tokenizer) of `load`; the last one stays loaded.

    It is known by its identity: once the files have changed, they are read again.
    """
    key = (*weights_identity(name, quantization, dtype).items(), block)
    if key not in _loaded:
        if _loaded:
            release()  # first, so that two models are never held at once
        _loaded[key] = load(name, quantization=quantization, dtype=dtype, block=block)
    return _loaded[key]


def release() -> None:
    """Let go of the model that stays loaded, and of the memory that was kept for the next one."""
    _loaded.clear()
    clear_device_cache(garbage_collection=True)


def weights_identity(name: str, quantization: str | None, dtype: str | None) -> dict:
    """Return the entries of a result's key that identify the very weights, and how they compute.

    Asks the hub for the commit of a model of which nothing is in the local cache yet.
    """
    device = default_device()
    return {
        "model": name,
        "revision": files.pinned(name).revision,
        "dtype": dtype or default_dtype(device),
        "quantization": quantization,
        "device": device,
    }


def default_device() -> str:
    """Return "cuda" or "cpu". Raises ModelError for a GPU that PyTorch cannot use."""
    machine.check_gpu()
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str) -> str:
    """Return `machine.fastest` on a CPU; bfloat16 on a GPU that computes in it, else float16."""
    if device == "cpu":
        return machine.fastest()
    on_cuda = str(device).startswith("cuda")  # a V100 and a T4 go by way of fp32, slowly
    emulated = on_cuda and not torch.cuda.is_bf16_supported(including_emulation=False)
    return "float16" if emulated else "bfloat16"


def nf4(dtype: torch.dtype = torch.bfloat16) -> BitsAndBytesConfig:
    """Return the configuration of NF4; it is multiplied in 16 bits, whatever `dtype` is."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if dtype == torch.float32 else dtype,
    )


def _unpacks(config, dtype: torch.dtype, device: str) -> bool:
    """Return whether NF4 is unpacked: on a CPU; on a GPU where the whole model has room.

    Never on a GPU into 32 bits, in which NF4 is not multiplied.
    """
    if device == "cpu":
        return True
    from ..gpu import memory, nf4

    size = layers.meta_model(config).num_parameters() * dtype.itemsize
    return dtype != torch.float32 and not nf4.stays_packed(size, memory.gpu_memory(device))


@contextmanager
def _unpacked_by_blocks() -> Iterator[None]:
    """Unpack NF4 block by block: of 64 numbers, which share a scale.

    On a CPU bitsandbytes 0.50 does it row by row, and takes wrong scales, without an error, where
    a row is no multiple of a block.
    """
    import bitsandbytes  # here: without it, all but NF4 works

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


def _read(checkpoint: Checkpoint, keep: Sequence[int], **options):
    """Return the model of the layers `keep`; only their tensors are read."""
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    # of a text and vision model, this may be its text part
    empty = layers.meta_model(layers.pruned_config(checkpoint.config, keep))
    tensors = checkpoint.tensors()
    model, info = type(empty).from_pretrained(
        None,
        config=empty.config,
        state_dict=layers.slice_state_dict(tensors, empty, checkpoint.num_layers, keep),
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    if wrong := sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]])):
        raise ModelError(
            f"The tensors in {checkpoint.folder} are not those of its config.json: {len(wrong)} "
            f"are missing or of another shape, such as {wrong[0]}."
        )
    folder = checkpoint.folder
    model.name_or_path = model.config.name_or_path = str(folder or "")
    if folder and (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def _check_finite(decoder, args, output) -> None:
    """A hook of a decoder in fp16: raise ModelError where its last states are not finite."""
    if not output[0].isfinite().all():
        raise ModelError(
            f"The states of {type(decoder).__name__} leave the range of float16 (±65,504): choose "
            "float32 (DTYPE=float32)."
        )
