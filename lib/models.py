"""Load any decoder-only model by name, and reach its parts the same way for every architecture."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import huggingface_hub
import torch
import transformers
from huggingface_hub import errors as hub_errors
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GgufConfig
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from lib import assets, paths
from lib.catalog import MODELS, ModelError, Source, resolve
from lib.profiles import Profile

__all__ = ["MODELS", "ModelError", "decoder_layers", "load"]

CHECKPOINT_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def load(
    name_or_path: str,
    *,
    quantization: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | None = None,
):
    """Load (model, tokenizer): a key of MODELS, a hub id, a local folder or a .gguf file.

    quantization: None, or "nf4" (bitsandbytes, double quantisation, bf16 compute). On the CPU the
    4-bit values are then unpacked once into weights of `dtype`: the same function, as fast as any
    other model, and with gradients that can be trusted (bitsandbytes' CPU kernels have no
    backward once a forward without gradients has repacked the weights).
    dtype: of the weights; by default bf16 where the hardware computes in it, else fp32.
    device: "cpu", "cuda", …; by default the GPU if there is one.
    Raises ModelError with one sentence for whatever cannot be had.
    """
    if quantization not in (None, "nf4"):
        raise ModelError(f"Unknown quantization {quantization!r}: give None or 'nf4'.")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    source = resolve(name_or_path)
    device = device or default_device()
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    dtype = dtype or getattr(torch, default_dtype(device))
    if source.kind == "random":
        if quantization:
            raise ModelError(f"{name_or_path} is made on the spot and cannot be quantised.")
        return _tiny_random(dtype, device), _with_pad(_tokenizer(resolve("smollm2-135m")))
    quantized = {"quantization_config": nf4()} if quantization else {}
    model = AutoModelForCausalLM.from_pretrained(
        checkpoint(source), dtype=dtype, device_map=device, **quantized
    )
    if quantization and device == "cpu":
        model = model.dequantize(dtype)
    return model.eval(), _with_pad(_tokenizer(source))


@lru_cache(maxsize=1)
def _kept(name: str, quantization: str | None, dtype: str | None):
    return load(name, quantization=quantization, dtype=dtype)


def base(name: str, profile: Profile):
    """(model, tokenizer) as a profile measures them; the last one stays loaded."""
    return _kept(name, profile.quantization, profile.dtype)


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


def checkpoint(source: Source) -> Path:
    """The local folder of a model's weights, downloaded or dequantised first if need be."""
    if source.kind == "hub":
        return _download(source)
    if source.kind == "asset":
        return _dequantised(assets.path(source.location), source.revision)
    if source.kind == "gguf":
        return _dequantised(Path(source.location), source.revision)
    return Path(source.location)


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies in it (GPUs, AVX512-BF16, AMX), else float32."""
    fast = device != "cpu" or {"avx512_bf16", "amx_bf16"} & {
        name for name, has in torch.cpu.get_capabilities().items() if has
    }
    return "bfloat16" if fast else "float32"


def decoder_config(model):
    """The configuration that the decoder reads (of a multimodal model, its text part)."""
    return model.get_decoder().config


def decoder_layers(model) -> nn.ModuleList:
    """The list of decoder layers, as long as the configuration says, of any HF decoder."""
    return getattr(model.get_decoder(), layers_attribute(model))


def layers_attribute(model) -> str:
    """What the decoder calls its list of layers (`layers`, `h`, `blocks`, …)."""
    length = decoder_config(model).num_hidden_layers
    lists = [
        name
        for name, child in model.get_decoder().named_children()
        if isinstance(child, nn.ModuleList) and len(child) == length
    ]
    if len(lists) != 1:
        raise ModelError(
            f"{type(model).__name__} is not a decoder with one uniform list of {length} layers."
        )
    return lists[0]


@contextmanager
def residual_stream(model, visit: Callable[[int, torch.Tensor], None], at: list[int] | None = None):
    """While active, every forward calls visit(l, x) with x^(l), shape (B, T, D), for l in `at`.

    x^(l) is the input to layer l, x^(L) the output of the last layer before the final norm
    (`hidden_states[-1]` of HF is after it). By default all l = 0 … L.
    """
    layers = decoder_layers(model)
    wanted = range(len(layers) + 1) if at is None else at
    handles = []
    for depth in wanted:
        if depth < len(layers):

            def before(module, args, kwargs, depth=depth):
                visit(depth, args[0] if args else kwargs["hidden_states"])

            handles.append(layers[depth].register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(module, args, output, depth=depth):
                visit(depth, output[0] if isinstance(output, tuple) else output)

            handles.append(layers[-1].register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _final_states(model, states: torch.Tensor) -> Iterator[None]:
    """The model with a decoder that hands out `states`."""
    decoder = model.get_decoder()
    answer = BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=states)
    decoder.forward = lambda *args, **kwargs: answer
    try:
        yield
    finally:
        del decoder.forward


def logits(model, states: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) of final states (N, D), by the model's own forward.

    The decoder hands out `states` instead of computing, so that whatever the architecture does
    around its lm_head (bias, soft-capping, scaling) is done, and only where it is wanted.
    """
    with _final_states(model, states[None]):
        placeholder = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
        return model(input_ids=placeholder, use_cache=False).logits[0]


def nf4() -> BitsAndBytesConfig:
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def _tokenizer(source: Source):
    return AutoTokenizer.from_pretrained(checkpoint(source))


def _with_pad(tokenizer):
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tiny_random(dtype: torch.dtype, device: str):
    """An 8-layer Llama with random weights and the embedded model's vocabulary, for tests."""
    config = transformers.LlamaConfig(
        vocab_size=MODELS["tiny-random"].vocab_size,
        num_hidden_layers=MODELS["tiny-random"].num_layers,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=dtype).to(device).eval()


def _dequantised(file: Path, digest: str) -> Path:
    """The checkpoint that `file`, a GGUF, is turned into once: plain bf16 safetensors."""
    folder = paths.CHECKPOINTS / f"{file.stem}-{digest[:12]}"
    if folder.exists():
        return folder
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(part)
    os.replace(part, folder)
    return folder


def _download(source: Source) -> Path:
    name = source.location
    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, revision=source.revision, allow_patterns=CHECKPOINT_FILES
            )
        )
    except hub_errors.GatedRepoError as error:
        raise ModelError(
            f"{name} is gated: accept its licence on its page on the hub, then log in with "
            "`hf auth login`."
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The hub has no model {name}, or it is private: check its name."
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {source.revision} on the hub.") from error
    except (OSError, hub_errors.HfHubHTTPError) as error:
        raise ModelError(
            f"{name} is not in the local cache and the hub cannot be reached: connect, or give "
            "a local folder, a .gguf file or smollm2-135m."
        ) from error
