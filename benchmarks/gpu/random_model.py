"""A Llama of random weights with a tokenizer of its own, as a checkpoint: nothing is downloaded."""

import json
import random
import string
from collections.abc import Sequence
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

from lib.evaluation import Task

SPECIAL = ("<unk>", "<s>", "</s>")
ANSWERS = (" A", " B", " C", " D")  # one token each, as MMLU needs them


def write(folder: Path, shards: int = 1, device: str = "cpu", **sizes) -> str:
    """Write the checkpoint of a LlamaConfig with `sizes` in fp16; return its folder as a name.

    Weights are drawn on `device`, one at a time, so that states keep their size from layer to
    layer; they lie in `shards` files.
    """
    config = transformers.LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2, dtype="float16")
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(config).state_dict()
    draw, names, places = torch.Generator(device).manual_seed(0), list(empty), {}
    for i in range(shards):
        own = names[i::shards]
        part = {name: _drawn(name, empty[name].shape, draw) for name in own}
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    _tokenizer().save_pretrained(folder)
    return str(folder)


def _drawn(name: str, shape: torch.Size, draw: torch.Generator) -> torch.Tensor:
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.float16)
    drawn = torch.randn(shape, device=draw.device, generator=draw)
    scale = 1 if "embed" in name else shape[-1] ** -0.5
    return drawn.mul_(scale).half().cpu()


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A token for each byte, and one for each of ANSWERS."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    plain = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = tokenizers.decoders.ByteLevel()
    plain.add_tokens([tokenizers.AddedToken(answer, normalized=False) for answer in ANSWERS])
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    unknown, begin, end = SPECIAL
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, unk_token=unknown, bos_token=begin, eos_token=end
    )


def texts(count: int, longest: int, shortest: int | None = None) -> list[str]:
    """Return texts of random letters, each a token; lengths evenly from shortest to longest."""
    draw = random.Random(0)
    if shortest is None:
        shortest = longest
    lengths = [draw.randint(shortest, longest) for _ in range(count)]
    return _letters(draw, lengths)


def texts_like(lengths: Sequence[int], count: int) -> list[str]:
    """Return texts of random letters whose lengths are spread as those given, in a random order."""
    draw, ordered = random.Random(0), sorted(lengths)
    spread = [ordered[len(ordered) * i // count] for i in range(count)]
    draw.shuffle(spread)
    return _letters(draw, spread)


def _letters(draw: random.Random, lengths: Sequence[int]) -> list[str]:
    letters = [draw.choices(string.ascii_letters, k=length) for length in lengths]
    return ["".join(of_text) for of_text in letters]


def mmlu(count: int, length: int, shots: int) -> Task:
    """Return questions of random letters by letter, each of `length`, of two subjects."""
    questions = texts((1 + shots) * count, length)
    examples = []
    for i, question in enumerate(questions[:count]):
        subject = i % 2
        others = [questions[count + subject + 2 * shot] for shot in range(shots)]
        solved = tuple(f"{other}\nAnswer: A\n\n" for other in others)
        parts = ("About letters.\n\n", solved, f"{question}\nAnswer:", list(ANSWERS))
        example = {"prompt": parts[0] + "".join(solved) + parts[2], "choices": list(ANSWERS)}
        example |= {"parts": parts, "answer": i % 4, "group": subject, "weight": 1}
        examples.append(example)
    return Task("mmlu", tuple(examples))
