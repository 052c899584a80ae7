"""What each question set asks, as text: prompts, choices and answers."""

import random
import re

from lib.data import sets

VERSION = 2  # bumped by hand when a prompt changes
MOST_SHOTS = 5


def mmlu(source: str, subjects: int, questions: int, shots: int, shot_order: int) -> list[dict]:
    """The prompt of Hendrycks et al., to the letter: header, `shots` solved examples, the question.

    Their header has two spaces after "about". parts: header, examples and question, from which a
    prompt that is too long is made anew with fewer examples.
    """
    examples = []
    for subject, rows in sets.mmlu(source, subjects, questions).items():
        about = "".join(f" {word}" for word in subject.split("_"))
        header = f"The following are multiple choice questions (with answers) about {about}.\n\n"
        shown = _ordered(rows["dev"][:shots], shot_order)
        solved = tuple(f"{_lettered(shot)} {'ABCD'[shot['answer']]}\n\n" for shot in shown)
        for row in rows["test"]:
            parts = (header, solved, _lettered(row))
            prompt = header + "".join(solved) + parts[-1]
            asked = _asked(prompt, [" A", " B", " C", " D"], row["answer"], subject)
            examples.append(asked | {"parts": parts, "weight": 1 / len(rows["test"])})
    return examples


def _asked(prompt: str, choices: list[str], answer, group) -> dict:
    """A question as `evaluation` takes it; those of a group have a beginning in common."""
    return {"prompt": prompt, "choices": choices, "answer": answer, "group": group, "weight": 1}


def _lettered(row: dict) -> str:
    choices = "".join(
        f"\n{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True)
    )
    return f"{row['question']}{choices}\nAnswer:"


def boolq(source: str, questions: int) -> list[dict]:
    """A passage and a question that is answered by no or yes."""
    return [
        _asked(
            f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
            [" No", " Yes"],
            int(row["answer"]),
            group=None,
        )
        for row in sets.questions("boolq", source, questions)
    ]


def arc_easy(source: str, questions: int, shots: int, shot_order: int) -> list[dict]:
    """Question and answer; the solved examples before them, if any, are never scored."""
    solved, scored = sets.arc_easy(source, questions, MOST_SHOTS)
    prefix, examples = "", []
    for row in _ordered(solved[:shots], shot_order):
        answer = row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]
        prefix += f"Question: {row['question']}\nAnswer: {answer}\n\n"
    for row in scored:
        prompt = f"{prefix}Question: {row['question']}\nAnswer:"
        choices = [f" {text}" for text in row["choices"]["text"]]
        answer = row["choices"]["label"].index(row["answerKey"])
        examples.append(_asked(prompt, choices, answer, "all" if prefix else row["id"]))
    return examples


def _ordered(shots: list[dict], order: int) -> list[dict]:
    """The solved examples in the order of the data set (0), or shuffled by the seed `order`."""
    return random.Random(order).sample(shots, len(shots)) if order else shots


def c4(source: str, sequences: int, max_tokens: int) -> list[dict]:
    """Documents, each read up to `max_tokens` tokens."""
    texts = sets.c4("validation", source, sequences)
    return [{"text": text, "max_tokens": max_tokens} for text in texts]


def hellaswag(source: str, questions: int) -> list[dict]:
    """How does the story go on? Contexts and endings as lm-eval's task of that name cleans them."""
    examples = []
    for i, row in enumerate(sets.questions("hellaswag", source, questions)):
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        choices = [f" {_without_brackets(ending)}" for ending in row["endings"]]
        examples.append(_asked(_without_brackets(context), choices, int(row["label"]), i))
    return examples


def _without_brackets(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def gsm8k(source: str, questions: int, shots: int, new_tokens: int | None = None) -> list[dict]:
    """A word problem after solved ones (the same for each); `answer` is the gold solution."""
    solved, scored = sets.gsm8k(source, questions, shots)
    told = "Question: {question}\nAnswer:"
    prefix = "".join(f"{told.format(**row)} {row['answer']}\n\n" for row in solved)
    return [
        _asked(
            prefix + told.format(question=row["question"]),
            [f" {row['answer']}"],
            row["answer"],
            group="all",
        )
        | {"new_tokens": new_tokens}
        for row in scored
    ]
