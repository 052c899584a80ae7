"""A Llama of random weights with a tokenizer of its own, as a checkpoint: nothing is downloaded."""

import json
import random
import string
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

from lib.evaluation import Task

SPECIAL = ("<unk>", "<s>", "</s>")
ANSWERS = (" A", " B", " C", " D", " No", " Yes")  # one token each, as question sets need them
VOCABULARY = len(SPECIAL) + 256 + len(ANSWERS)


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
    """`count` texts of random letters, each a token; lengths evenly from shortest to longest."""
    draw, shortest = random.Random(0), longest if shortest is None else shortest
    lengths = [draw.randint(shortest, longest) for _ in range(count)]
    return ["".join(draw.choices(string.ascii_letters, k=length)) for length in lengths]


def task(name: str, count: int, length: int = 40, shots: int = 1) -> Task:
    """A question set of random letters in the form of the real one, each question of `length`."""
    questions = texts((1 + shots) * count, length)
    choices = {"mmlu": ANSWERS[:4], "boolq": ANSWERS[4:], "gsm8k_bpb": (" to be",)}
    choices = choices.get(name, (" to be", " or", " not to be"))
    examples = []
    for i, question in enumerate(questions[:count]):
        subject = i % 2 if name == "mmlu" else i
        others = [questions[count + subject + 2 * shot] for shot in range(shots)]
        solved = tuple(f"{other}\nAnswer: A\n\n" for other in others)
        parts = ("About letters.\n\n", solved, f"{question}\nAnswer:", list(choices))
        right = choices[0] if name == "gsm8k_bpb" else i % len(choices)
        example = {"prompt": parts[0] + "".join(solved) + parts[2], "choices": list(choices)}
        group = None if name == "boolq" else subject
        examples.append(example | {"parts": parts, "answer": right, "group": group, "weight": 1})
    return Task(name, tuple(examples))
