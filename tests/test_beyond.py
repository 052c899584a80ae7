"""HellaSwag, GSM8K: each equal to the plain way of doing it."""

import numpy as np
import pytest
import tokenizers
import torch
from conftest import letters, tiny
from transformers import GenerationConfig

from lib.blocks import UNPRUNED, Block
from lib.data.encoding import Row
from lib.evaluation import Task
from lib.models import reading
from lib.pruning import dropped
from lib.sweep import continuations

# ---- HellaSwag and GSM8K -------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, right",
    [
        (" 1 + 1 = 2\n#### 1,080", 1),
        (" #### 1080 and then #### 3", 1),
        (" #### 3 and then #### 1080", 0),
        (" The answer is 1080.", 0),
    ],
)
def test_gsm8k_exact_match(text, right):
    earned = {"answer": "It is <<1000+80=1080>>1080\n#### 1,080"}
    owed = {"answer": "It is\n#### -1,080"}
    negative = text.replace("#### ", "#### -")
    scores, _ = Task("gsm8k", (earned, owed, owed)).scores([[text], [negative], [text]])
    assert scores.tolist() == [right, right, 0]


def test_bits_per_byte():
    """A uniform guess among 256 bytes costs 8 bits each, however they are split into tokens."""
    task = Task("gsm8k_bpb", ({"choices": [" añb"], "answer": "añb"},))
    loglikelihoods = np.log([1 / 256**3, 1 / 256**2])
    values, weights = task.scores([[loglikelihoods]])
    assert values.tolist() == pytest.approx([8])
    assert weights.tolist() == [5]


TOKENIZER = letters()
TOKENIZER.pad_token = "<unk>"
TOKENIZER.backend_tokenizer.decoder = tokenizers.decoders.Fuse()  # without spaces


def greedy(model, prompt: tuple[int, ...], most: int) -> list[int]:
    """Tokens written one at a time after a prompt, up to the end of a text."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + most and tokens[-1] != 2:
        with torch.inference_mode():
            logits = model(torch.tensor([tokens], device=model.device)).logits
        tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("name", ["llama", "gemma3", "lfm2"])
def test_continuations_are_those_of_greedy_steps(name):
    """Batched, left-padded and cached, for each block: one token after another, run whole."""
    model = tiny(name)
    rows = [Row((*range(3, 9), *range(n, 4, -1)), ()) for n in (6, 11, 8)]  # which begin alike
    blocks = [UNPRUNED, Block(1, 2), Block(4, 2)]
    written = continuations(model, TOKENIZER, blocks, rows, 6, 200)
    for block in blocks:
        for row, text in zip(rows, written[block], strict=True):
            with dropped(model, block):
                tokens = greedy(model, row.tokens, 6)
            assert text == TOKENIZER.decode(tokens, True)


def test_greedily_means_without_penalties(llama):
    """An instruct model's generation_config asks for some; the model keeps it."""
    rows = [Row((5, 6, 7), ())]
    plain = continuations(llama, TOKENIZER, [UNPRUNED], rows, 8, 200)
    (text,) = plain[UNPRUNED]
    assert len(set(text)) < len(text)
    llama.generation_config = GenerationConfig(no_repeat_ngram_size=1, eos_token_id=2)
    again = continuations(llama, TOKENIZER, [UNPRUNED], rows, 8, 200)
    assert again == plain
    assert llama.generation_config.no_repeat_ngram_size == 1


def test_continuations_end_at_a_stop(llama, monkeypatch):
    rows = [Row((5, 6, 7), ())]
    (whole,) = continuations(llama, TOKENIZER, [UNPRUNED], rows, 12, 200)[UNPRUNED]
    stop = whole[3:5]
    monkeypatch.setattr(reading, "GSM8K_STOPS", (stop,))
    steps = []
    llama.register_forward_hook(lambda *_: steps.append(1))
    (cut,) = continuations(llama, TOKENIZER, [UNPRUNED], rows, 12, 200)[UNPRUNED]
    assert cut == whole.split(stop)[0]
    assert len(steps) <= 6
