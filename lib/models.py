"""Load any decoder-only model by name, whole or only the layers that stay."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import transformers
from accelerate.utils import get_max_memory
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    GenerationConfig,
)

from lib import weights
from lib.costs import NF4_BYTES
from lib.decoder import decoder_layers
from lib.profiles import Profile
from lib.pruning import UNPRUNED, Block, followed
from lib.registry import MODELS, ModelError, Source, resolve
from lib.sources import Contents, contents_of, tokenizer

__all__ = ["MODELS", "ModelError", "decoder_layers", "load", "tokenizer"]


def load(
    name_or_path: str,
    *,
    quantization: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
    block: Block = UNPRUNED,
):
    """Load (model, tokenizer): a key of MODELS, a hub id, a local folder or a .gguf file.

    quantization: None, or "nf4" (bitsandbytes, double quantisation, bf16 compute). On the CPU the
    4-bit values are then unpacked once into weights of `dtype`: the same function, as fast as any
    other model, and with gradients that can be trusted (bitsandbytes' CPU kernels have no
    backward once a forward without gradients has repacked the weights).
    dtype: of the weights; by default bf16 where the hardware computes in it, else fp32.
    device: "cpu", "cuda", …; by default the GPU if there is one.
    block: layers that are left out and never read; the model is that of `pruning.dropped`.
    Raises ModelError with one sentence for whatever cannot be had.
    """
    source, options = _checked(name_or_path, quantization, dtype, device)
    contents = _contents(source)
    return _assembled(contents, block.kept(contents.num_layers), **options), tokenizer(name_or_path)


def one_layer_models(
    name_or_path: str,
    *,
    quantization: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
) -> Iterator[nn.Module]:
    """The model of each single layer l = 0, 1, …, L - 1 in turn, as `load` would make it.

    Each layer is read when its turn comes, and is taken out of its model when the next one's has;
    embeddings, norm and lm_head are read once and shared.
    """
    source, options = _checked(name_or_path, quantization, dtype, device)
    num_layers, shared = _contents(source).num_layers, {}
    for l in range(num_layers):
        contents = contents_of(source)  # opened anew, or all that was read would stay mapped
        model = _assembled(replace(contents, tensors=contents.tensors | shared), [l], **options)
        own = {id(parameter) for parameter in decoder_layers(model).parameters()}
        shared = {n: p.data for n, p in model.named_parameters() if id(p) not in own}
        del contents
        yield model
        del decoder_layers(model)[:]  # whoever still holds the model no longer holds the layer


_loaded = {}


def base(name: str, profile: Profile, block: Block = UNPRUNED):
    """(model, tokenizer) as a profile measures them, without `block`; the last one stays loaded."""
    wanted = (name, profile.quantization, profile.dtype, block)
    if wanted not in _loaded:
        _loaded.clear()  # first, so that two models are never held at once
        _loaded[wanted] = load(
            name, quantization=profile.quantization, dtype=profile.dtype, block=block
        )
    return _loaded[wanted]


def base_layers(name: str, profile: Profile) -> Iterator[nn.Module]:
    """The model of each single layer in turn, as a profile measures them."""
    return one_layer_models(name, quantization=profile.quantization, dtype=profile.dtype)


def fits(name: str, profile: Profile) -> bool:
    """Whether the whole model fits into the memory that is free now, by the size of its weights."""
    source, options = _checked(name, profile.quantization, profile.dtype, None)
    if source.kind == "random":
        return True
    count = weights.count(contents_of(source).tensors)
    four_bit = NF4_BYTES if profile.quantization else 0
    unpacked = 0 if four_bit and options["device"] != "cpu" else options["dtype"].itemsize
    free = get_max_memory()
    return count * (four_bit + unpacked) < free["cpu" if options["device"] == "cpu" else 0]


def identity(name: str, profile: Profile) -> dict:
    """What a result's key says of the model: the very weights, and how they compute."""
    device = default_device()
    return {
        "model": name,
        "revision": resolve(name).revision,
        "dtype": profile.dtype or default_dtype(device),
        "quantization": profile.quantization,
        "device": device,
        "threads": torch.get_num_threads(),
    }


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies in it (GPUs, AVX512-BF16, AMX), else float32."""
    fast = device != "cpu" or {"avx512_bf16", "amx_bf16"} & {
        name for name, has in torch.cpu.get_capabilities().items() if has
    }
    return "bfloat16" if fast else "float32"


def nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _checked(name: str, quantization, dtype, device) -> tuple[Source, dict]:
    """The source, and how its weights are wanted, with the defaults filled in."""
    if quantization not in (None, "nf4"):
        raise ModelError(f"Unknown quantization {quantization!r}: give None or 'nf4'.")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    device = device or default_device()
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    dtype = dtype or getattr(torch, default_dtype(device))
    return resolve(name), {"quantization": quantization, "dtype": dtype, "device": device}


def _contents(source: Source) -> Contents:
    """What a model is made of. Raises ModelError if it cannot do without some of its layers."""
    contents = contents_of(source)
    _check_uniform(contents.config)
    return contents


def _assembled(contents: Contents, keep: Sequence[int], quantization, dtype, device):
    """The model of the layers `keep`, on the meta device first; only their tensors are read."""
    config = followed(contents.config, keep)
    one = _skeleton(followed(contents.config, [0]))
    tensors = weights.renumbered(contents.tensors, one, contents.num_layers, keep)
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
    if quantization and device == "cpu":
        model = model.dequantize(dtype)
    model.name_or_path = model.config.name_or_path = str(contents.folder or "")
    if contents.folder and (contents.folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(contents.folder)
    return model.eval()


def _check_uniform(config) -> None:
    """Raise ModelError if the configuration cannot follow when layers are removed.

    It can if the layers that are left are then the same layers; a model without its first layer,
    where all move by one, tells.
    """
    count = config.get_text_config(decoder=True).num_hidden_layers
    whole, cut = (_skeleton(followed(config, range(first, count))) for first in (0, 1))
    before, after = (
        [{name: p.shape for name, p in layer.named_parameters()} for layer in decoder_layers(model)]
        for model in (whole, cut)
    )
    if before[1:] != after:
        raise ModelError(
            f"A {config.model_type} decoder decides by the position of a layer of what kind it is, "
            "so none can be removed."
        )


def _skeleton(config):
    """The model of a configuration without any weights."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{config.model_type} is no decoder-only language model.")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
