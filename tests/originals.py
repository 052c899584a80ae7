"""Tiny models and data sets laid out like the paper's own on the hub: `owner/name/files`.

File names, configuration keys, tensor names and types are those of the originals; only the sizes
are small. What must not be used (pickled weights, the models' own Python) is there, and poisoned.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import tokenizers
import torch
from safetensors.torch import save_file
from tokenizers import decoders, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, CodeGenTokenizer, MistralConfig, PhiConfig
from transformers import LlamaConfig as Llama

WIDTH, LAYERS, HEADS = 32, 3, 4
ANSWERS = "Answer: Yes Answer: No Answer: A Answer: B Answer: C Answer: D " * 100
POISON = "raise RuntimeError('the code of a checkpoint was run')\n"
SEQ_LENGTH = 2048  # as of Qwen-14B


def shards(folder: Path, tensors: dict, count: int) -> None:
    """model-0000i-of-0000n.safetensors and their index."""
    names = sorted(tensors)
    places = {}
    for i in range(count):
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        part = {name: tensors[name].clone().contiguous() for name in names[i::count]}
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "pytorch_model.bin").write_bytes(b"not to be read")


def weights(config, dtype) -> dict:
    """Random weights under the names that HF's own class gives them."""
    return AutoModelForCausalLM.from_config(config, dtype=dtype).state_dict()


def written(folder: Path, name: str, content: dict) -> None:
    (folder / name).write_text(json.dumps(content, indent=2))


# ---- tokenizers --------------------------------------------------------------------------------


def sentencepiece_like(folder: Path, texts: list[str], vocab_size: int = 600) -> None:
    """The fast tokenizer of Llama-2 and Mistral: spaces as ▁, bytes where a letter is unknown."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # to train by words
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special[:3])
    )
    content = json.loads(tokenizer.to_str()) | {"pre_tokenizer": None}
    vocab = content["model"]["vocab"]
    for token in special[3:]:
        vocab.setdefault(token, len(vocab))
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False}
    written(folder, "tokenizer_config.json", settings | extra)
    written(folder, "special_tokens_map.json", settings)


def codegen(folder: Path, texts: list[str]) -> None:
    """Phi-2's tokenizer: GPT-2's byte-level BPE, with no padding token."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    CodeGenTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")
    ).save_pretrained(folder)


def ranks(texts: list[str], vocab_size: int = 400) -> dict[bytes, int]:
    """A byte-pair vocabulary as in qwen.tiktoken: every token is two of lower rank joined."""
    from tiktoken._educational import bpe_train

    from lib.models.qwen1 import _WORDS

    return bpe_train((ANSWERS + " ".join(texts))[:20_000], vocab_size, _WORDS, visualise=None)


def tiktoken_file(folder: Path, vocabulary: dict[bytes, int]) -> None:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in vocabulary.items()]
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n")


# ---- models ------------------------------------------------------------------------------------


SHARED = {  # by the configurations of Llama-2 and Mistral
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": WIDTH,
    "initializer_range": 0.2,
    "intermediate_size": 48,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 900,
}


def llama_2(folder: Path, texts: list[str]) -> None:
    config = SHARED | {
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "num_key_value_heads": 2 if "70b" in folder.name else HEADS,
        "pretraining_tp": 1,
        "rope_scaling": None,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0.dev0",
    }
    written(folder, "config.json", config)
    written(folder, "generation_config.json", {"temperature": 0.6, "top_p": 0.9, "do_sample": True})
    shards(folder, weights(Llama(**config), torch.float16), 15 if "70b" in folder.name else 2)
    sentencepiece_like(folder, texts)


def mistral(folder: Path, texts: list[str]) -> None:
    config = SHARED | {
        "architectures": ["MistralForCausalLM"],
        "max_position_embeddings": 32768,
        "model_type": "mistral",
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
        "sliding_window": 4096,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.34.0.dev0",
    }
    written(folder, "config.json", config)
    shards(folder, weights(MistralConfig(**config), torch.bfloat16), 2)
    sentencepiece_like(folder, texts)


def phi_2(folder: Path, texts: list[str]) -> None:
    config = {
        "architectures": ["PhiForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 50256,
        "embd_pdrop": 0.0,
        "eos_token_id": 50256,
        "hidden_act": "gelu_new",
        "hidden_size": 40,  # rotary embeddings on 0.4 of 10
        "initializer_range": 0.2,
        "intermediate_size": 64,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 2048,
        "model_type": "phi",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "partial_rotary_factor": 0.4,
        "qk_layernorm": False,
        "resid_pdrop": 0.1,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "transformers_version": "4.37.0",
        "use_cache": True,
        "vocab_size": 512,
    }
    written(folder, "config.json", config)
    shards(folder, weights(PhiConfig(**config), torch.float16), 2)
    codegen(folder, texts)


def qwen_1_config(vocab_size: int) -> dict:
    return {
        "architectures": ["QWenLMHeadModel"],
        "auto_map": {
            "AutoConfig": "configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
        },
        "attn_dropout_prob": 0.0,
        "bf16": False,
        "emb_dropout_prob": 0.0,
        "fp16": False,
        "fp32": False,
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "initializer_range": 0.2,
        "kv_channels": WIDTH // HEADS,
        "layer_norm_epsilon": 1e-06,
        "max_position_embeddings": 32768,
        "model_type": "qwen",
        "no_bias": True,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "onnx_safe": None,
        "rotary_emb_base": 10000,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": SEQ_LENGTH,
        "tie_word_embeddings": False,
        "tokenizer_class": "QWenTokenizer",
        "transformers_version": "4.32.0",
        "use_cache": True,
        "use_dynamic_ntk": True,
        "use_flash_attn": "auto",
        "use_logn_attn": True,
        "vocab_size": vocab_size,
    }


def qwen_1_weights(config: dict, dtype=torch.bfloat16) -> dict:
    """Random tensors under Qwen-1's own names."""
    width, half = config["hidden_size"], config["intermediate_size"] // 2

    def random(*shape):
        return (0.2 * torch.randn(shape)).to(dtype)

    tensors = {
        "transformer.wte.weight": random(config["vocab_size"], width),
        "transformer.ln_f.weight": 1 + random(width),
        "lm_head.weight": random(config["vocab_size"], width),
    }
    for l in range(config["num_hidden_layers"]):
        tensors |= {
            f"transformer.h.{l}.ln_1.weight": 1 + random(width),
            f"transformer.h.{l}.attn.c_attn.weight": random(3 * width, width),
            f"transformer.h.{l}.attn.c_attn.bias": random(3 * width),
            f"transformer.h.{l}.attn.c_proj.weight": random(width, width),
            f"transformer.h.{l}.ln_2.weight": 1 + random(width),
            f"transformer.h.{l}.mlp.w1.weight": random(half, width),
            f"transformer.h.{l}.mlp.w2.weight": random(half, width),
            f"transformer.h.{l}.mlp.c_proj.weight": random(width, half),
        }
    return tensors


def qwen_1(folder: Path, texts: list[str]) -> None:
    vocabulary = ranks(texts)
    config = qwen_1_config(-(-(len(vocabulary) + 208) // 128) * 128)
    written(folder, "config.json", config)
    written(folder, "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer"})
    tiktoken_file(folder, vocabulary)
    for name in ("modeling_qwen", "configuration_qwen", "tokenization_qwen"):
        (folder / f"{name}.py").write_text(POISON)
    shards(folder, qwen_1_weights(config), 8)


MODELS = {
    "meta-llama/Llama-2-7b-hf": llama_2,
    "meta-llama/Llama-2-13b-hf": llama_2,
    "meta-llama/Llama-2-70b-hf": llama_2,
    "Qwen/Qwen-7B": qwen_1,
    "Qwen/Qwen-14B": qwen_1,
    "mistralai/Mistral-7B-v0.1": mistral,
    "microsoft/phi-2": phi_2,
}


# ---- data sets -----------------------------------------------------------------------------------


def c4(root: Path, texts: list[str]) -> None:
    folder = root / "allenai/c4/en"
    folder.mkdir(parents=True)
    half = len(texts) // 2
    for name, part in {
        "c4-train.00000-of-01024": texts[: half // 2],
        "c4-train.00001-of-01024": texts[half // 2 : half],
        "c4-validation.00000-of-00008": texts[half:],
    }.items():
        with gzip.open(folder / f"{name}.json.gz", "wt", encoding="utf-8") as file:
            for text in part:
                row = {"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "https://a.b/c"}
                file.write(json.dumps(row) + "\n")


def table(root: Path, place: str, rows: list[dict]) -> None:
    file = root / f"{place}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(file)


def mirror(
    root: Path, texts: list[str], questions: dict[str, list[dict]], models: Iterable[str] = MODELS
) -> None:
    """All of it below `root`. questions: rows of "mmlu" (with subject), "boolq", "arc_easy",
    "hellaswag" and "gsm8k". models: of MODELS.

    The answers are one token in every vocabulary, as they are in the originals.
    """
    for repository in models:
        folder = root / repository
        folder.mkdir(parents=True)
        torch.manual_seed(len(folder.name))
        MODELS[repository](folder, [ANSWERS, *texts])
    c4(root, texts)
    for split in ("dev", "validation", "test"):
        table(root, f"cais/mmlu/all/{split}", questions["mmlu"])
    for split in ("train", "validation"):
        table(root, f"google/boolq/data/{split}", questions["boolq"])
        table(root, f"allenai/ai2_arc/ARC-Easy/{split}", questions["arc_easy"])
    table(root, "Rowan/hellaswag/data/validation", questions["hellaswag"])
    for split in ("train", "test"):
        table(root, f"openai/gsm8k/main/{split}", questions["gsm8k"])
