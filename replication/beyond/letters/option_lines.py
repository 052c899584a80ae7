"""Where a prompt has the lines of its options, in characters and in tokens."""

from collections.abc import Sequence


def lines_of(example: dict) -> tuple[str, list[str]]:
    """Return the question's own text, and the text of each option that it lists."""
    prompt, choices = example["prompt"], example["choices"]
    starts, ends = line_starts(prompt, choices), line_ends(prompt, choices)
    before = prompt[: starts[0]]  # with the solved examples
    question = before[before.rfind("\n\n") + 1 :]
    lines = [prompt[start:end] for start, end in zip(starts, ends, strict=True)]
    return question, [line.split(". ", 1)[1] for line in lines]


def line_starts(prompt: str, choices: Sequence[str]) -> list[int]:
    """Return where each option's line begins (its letter), as places in the prompt."""
    starts, end = [], len(prompt)
    for choice in reversed(choices):
        end = prompt.rindex(f"\n{choice.strip()}. ", 0, end)
        starts.insert(0, end + 1)
    return starts


def line_ends(prompt: str, choices: Sequence[str]) -> list[int]:
    """Return where each option's line ends (its newline), as places in the prompt."""
    starts = line_starts(prompt, choices)
    return [*(start - 1 for start in starts[1:]), prompt.rindex("\nAnswer:")]


def token_at(character: int, offsets: Sequence[tuple[int, int]]) -> int:
    """Return the last token that holds a character; offsets: where each begins and ends."""
    return max(i for i, (start, stop) in enumerate(offsets) if start <= character < stop)
