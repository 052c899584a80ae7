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
            question = _lettered(row)
            examples.append(
                {
                    "prompt": header + "".join(solved) + question,
                    "parts": (header, solved, question),
                    "choices": [" A", " B", " C", " D"],
                    "answer": row["answer"],
                    "group": subject,
                    "weight": 1 / len(rows["test"]),
                }
            )
    return examples


def _lettered(row: dict) -> str:
    choices = "".join(
        f"\n{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True)
    )
    return f"{row['question']}{choices}\nAnswer:"


def boolq(source: str, questions: int) -> list[dict]:
    rows = sets.boolq(source, questions)
    return [
        {
            "prompt": f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:",
            "choices": [" No", " Yes"],
            "answer": int(row["answer"]),
            "group": None,
            "weight": 1,
        }
        for row in rows
    ]


def arc_easy(source: str, questions: int, shots: int, shot_order: int) -> list[dict]:
    """Question and answer; the solved examples before them, if any, are never scored."""
    solved, scored = sets.arc_easy(source, questions, MOST_SHOTS)
    prefix = ""
    for row in _ordered(solved[:shots], shot_order):
        answer = row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]
        prefix += f"Question: {row['question']}\nAnswer: {answer}\n\n"
    return [
        {
            "prompt": f"{prefix}Question: {row['question']}\nAnswer:",
            "choices": [f" {text}" for text in row["choices"]["text"]],
            "answer": row["choices"]["label"].index(row["answerKey"]),
            "group": "all" if prefix else row["id"],
            "weight": 1,
        }
        for row in scored
    ]


def _ordered(shots: list[dict], order: int) -> list[dict]:
    """The solved examples in the order of the data set (0), or shuffled by the seed `order`."""
    return random.Random(order).sample(shots, len(shots)) if order else shots


def c4(source: str, sequences: int, max_tokens: int) -> list[dict]:
    texts = sets.c4("validation", source, sequences)
    return [{"text": text, "max_tokens": max_tokens} for text in texts]


def hellaswag(source: str, questions: int) -> list[dict]:
    """How does the story go on? Contexts and endings as lm-eval's task of that name cleans them."""
    examples = []
    for i, row in enumerate(sets.hellaswag(source, questions)):
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        examples.append(
            {
                "prompt": _without_brackets(context),
                "choices": [f" {_without_brackets(ending)}" for ending in row["endings"]],
                "answer": int(row["label"]),
                "group": i,
                "weight": 1,
            }
        )
    return examples


def _without_brackets(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def gsm8k(source: str, questions: int, shots: int, new_tokens: int | None = None) -> list[dict]:
    """A word problem after solved ones (the same for each); `answer` is the gold solution."""
    solved, scored = sets.gsm8k(source, questions, shots)
    asked = "Question: {question}\nAnswer:"
    prefix = "".join(f"{asked.format(**row)} {row['answer']}\n\n" for row in solved)
    return [
        {
            "prompt": prefix + asked.format(question=row["question"]),
            "choices": [f" {row['answer']}"],
            "answer": row["answer"],
            "new_tokens": new_tokens,
            "group": "all",
            "weight": 1,
        }
        for row in scored
    ]
