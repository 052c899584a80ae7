"""The loss far into long texts, where a cut may cost more than within the first tokens."""

from ..data import chats, encoding, sets
from ..evaluation import Task
from ..models.decoder import window
from .options import MAX_TOKENS, Options

LENGTHS = (1024, 4096)  # tokens of the texts
TEXTS = 4  # that are read
FEWEST = 3  # that are so long; with fewer there is no score
AMONG = 384  # of the texts that judge


def lengths(options: Options, config) -> list[int]:
    """Return how long the texts are that are read: 1,024 tokens; 4,096 if SEQUENCE is as long.

    Not more than the model reads. 4,096 take as long as all else that is scored.
    """
    most = max(LENGTHS[0], options.sequence)
    return [length for length in LENGTHS if length <= min(most, window(config) or most)]


def tasks(options: Options, config, tokenizer) -> dict[str, Task]:
    """Return what is scored far into texts, by its name in a record.

    c4_1024: tokens 257 to 1,024 of texts that have so many. c4_4096: tokens 1,025 to 4,096. Each
    token is read with all that comes before it.
    """
    made, first = {}, MAX_TOKENS
    for length in lengths(options, config):
        examples = _examples(options, tokenizer, first, length)
        if len(examples) >= FEWEST:
            made[f"c4_{length}"] = Task("c4", tuple(examples))
        first = length
    return made


def _examples(options: Options, tokenizer, first: int, length: int) -> list[dict]:
    """Return the first texts of `length` tokens of which any after `first` counts."""
    examples = []
    texts = sets.c4("validation", options.texts or options.source, AMONG)
    for text in dict.fromkeys(texts):
        if len(examples) == min(TEXTS, options.limit):
            break
        example = {"text": text, "max_tokens": length, "skipped": first}
        is_long = len(chats.tokens(text, tokenizer, length).ids) == length
        if is_long and any(len(row.target_ids) for row in encoding.text(example, tokenizer)):
            examples.append(example)
    return examples
