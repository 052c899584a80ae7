"""Chats: messages of one's own, and texts as tokens, with the places of those that count.

Of a plain text each token counts. A chat is written out by the model's own template. Of it the
assistant's answers count: their tokens, and the special token that ends each.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import TemplateError

ROLES = ("system", "user", "assistant")
ANSWERS = "assistant"
MARK = "\ue000"  # a character of no text, which shows where a template writes an answer


@dataclass(frozen=True)
class Chat:
    """A conversation: (role, content) of each message."""

    messages: tuple[tuple[str, str], ...]


Text = str | Chat  # plain, or a conversation


class Tokens(NamedTuple):
    """A text as tokens, and which of them count: spans of places, half-open, in order."""

    ids: list[int]
    spans: list[tuple[int, int]]


def read(messages) -> Chat:
    """Return a chat from a row of a file. Raises ValueError if it is none; "row 3" goes before it.

    messages: dicts with `role`, one of ROLES, and `content`, a text.
    """
    if not isinstance(messages, Iterable) or isinstance(messages, str):
        raise ValueError("has no list of messages")
    pairs = []
    for message in messages:
        message = message if isinstance(message, dict) else {}
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"has the role {role!r}, which is none of {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise ValueError(f"has a message of the {role} whose content is no text")
        if role == ANSWERS and not content.strip():
            raise ValueError("has an empty answer")
        pairs.append((role, content))
    if ANSWERS not in dict(pairs):
        raise ValueError(f"has no answer, which is a message of the {ANSWERS}")
    return Chat(tuple(pairs))


def tokens(text: Text, tokenizer, max_tokens: int | None = None) -> Tokens:
    """Return a text as tokens, at most `max_tokens` (None: all).

    Raises ValueError for a chat that the tokenizer's template cannot write, or hides answers of.
    """
    if isinstance(text, str):
        cut = {} if max_tokens is None else {"truncation": True, "max_length": max_tokens}
        ids = tokenizer(text, **cut).input_ids
        return Tokens(ids, [(0, len(ids))])
    written = _written(text.messages, tokenizer)
    # the template has written the token for the beginning itself, if the model wants one
    encoded = tokenizer(written, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded.input_ids, encoded.offset_mapping
    ends = tokenizer.added_tokens_decoder
    spans = []
    for first, last in _answers(text, tokenizer, written):
        places = [place for place, span in enumerate(offsets) if _overlap(span, first, last)]
        start, stop = places[0], places[-1] + 1
        ended = stop < len(ids) and ids[stop] in ends and offsets[stop][0] <= last
        spans.append((start, stop + ended))
    most = len(ids) if max_tokens is None else max_tokens
    return Tokens(ids[:most], [(a, min(b, most)) for a, b in spans if a < most])


def _overlap(span: tuple[int, int], first: int, last: int) -> bool:
    """Return whether a token has a character of an answer.

    Some tokenizers only say where a token of white space ends.
    """
    start, stop = span
    return stop > first and (start < last or start == stop == last)


def _answers(chat: Chat, tokenizer, written: str) -> list[tuple[int, int]]:
    """Return where each answer begins and ends in the written chat, in characters.

    The chat is written again with a mark before the answer, and with one after it. Both texts equal
    `written` up to the mark. So it does not matter what a template writes around an answer.
    """
    spans = []
    for number, (role, content) in enumerate(chat.messages):
        if role != ANSWERS:
            continue
        places = []
        for marked in (MARK + content, content + MARK):
            messages = list(chat.messages)
            messages[number] = (role, marked)
            other = _written(messages, tokenizer)
            place = len(os.path.commonprefix([written, other]))
            # a template may leave out white space around an answer
            if other[place:].lstrip()[:1] != MARK:
                raise ValueError(
                    "The chat template of the model does not show all of an answer "
                    f"({content[:40]!r})."
                )
            places.append(place)
        spans.append(tuple(places))
    return spans


def _written(messages: Iterable[tuple[str, str]], tokenizer) -> str:
    """Return messages as the model's chat template writes them."""
    entries = [{"role": role, "content": content} for role, content in messages]
    try:
        return tokenizer.apply_chat_template(entries, tokenize=False)
    except TemplateError as error:
        raise ValueError(f"The chat template of the model refuses a chat: {error}") from error


def check(texts: Iterable[Text], tokenizer, model: str) -> None:
    """Raise ValueError for chats that the model's tokenizer cannot read; `model` is its name."""
    for number, chat in enumerate(texts):
        if not isinstance(chat, Chat):
            continue
        if number == 0 and not tokenizer.chat_template:
            raise ValueError(
                f"{model} has no chat template, so it reads no messages: take its instruct model, "
                "or TEXTS of plain texts."
            )
        if number == 0 and not tokenizer.is_fast:
            raise ValueError(
                f"The tokenizer of {model} does not tell where its tokens lie, so it reads no "
                "messages: save it with a tokenizer.json."
            )
        tokens(chat, tokenizer)
