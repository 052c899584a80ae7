"""Questions as text: the prompt of each task, its choices, and which of them is right."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable

from . import sets

VERSION = 2  # bumped by hand when a prompt changes
MOST_SHOTS = 5
LETTERS = "ABCDE"
ABOUT = "The following are multiple choice questions (with answers) about  {}.\n\n"  # two spaces


def by_letter(question: str, texts: list[str], letters: str = LETTERS) -> tuple[str, list[str]]:
    """Return a prompt that lists the options, and their letters as its choices."""
    letters = letters[: len(texts)]
    lines = [f"\n{letter}. {text}" for letter, text in zip(letters, texts, strict=True)]
    return f"{question}{''.join(lines)}\nAnswer:", [f" {letter}" for letter in letters]


def by_content(question: str, texts: list[str]) -> tuple[str, list[str]]:
    """Return a prompt that shows no option, and the options' texts as its choices."""
    return f"Question: {question.strip()}\nAnswer:", [f" {text}" for text in texts]


Form = Callable[[str, list[str]], tuple[str, list[str]]]  # as those: of a question and its options


def mmlu(
    source: str,
    subjects: int,
    questions: int,
    shots: int,
    shot_order: int,
    form: Form = by_letter,
    about: str = ABOUT,
) -> list[dict]:
    """The prompt of Hendrycks et al., to the letter: header, `shots` solved examples, the question.

    about: the header, of a subject. parts: header, examples, question and choices, from which a
    prompt that is too long is made anew.
    """
    examples = []
    for subject, rows in sets.mmlu(source, subjects, questions).items():
        header = about.format(subject.replace("_", " "))
        solved = _solved(_ordered(rows["dev"][:shots], shot_order), form)
        for row in rows["test"]:
            question, choices = form(row["question"], row["choices"])
            prompt = header + "".join(solved) + question
            own = example(prompt, choices, row["answer"], subject)
            own |= {"parts": (header, solved, question, choices), "weight": 1 / len(rows["test"])}
            examples.append(own)
    return examples


def example(prompt: str, choices: list[str], answer, group) -> dict:
    """Return a question as `evaluation` takes it; those of a group begin alike."""
    return {"prompt": prompt, "choices": choices, "answer": answer, "group": group, "weight": 1}


def _solved(rows: Iterable[dict], form) -> tuple[str, ...]:
    """Solved examples in a form, each with the blank line after it."""
    solved = []
    for row in rows:
        question, choices = form(row["question"], row["choices"])
        solved.append(f"{question}{choices[row['answer']]}\n\n")
    return tuple(solved)


def boolq(source: str, questions: int) -> list[dict]:
    """A passage and a question about it, which is answered by no or yes."""
    examples = []
    for row in sets.questions("boolq", source, questions):
        prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
        examples.append(example(prompt, [" No", " Yes"], int(row["answer"]), None))
    return examples


def multiple_choice(
    source: str,
    questions: int,
    shots: int = 0,
    shot_order: int = 0,
    *,
    data: sets.DataSet,
    read: Callable[[dict], dict],
    form: Form = by_content,
    most_shots: int = MOST_SHOTS,
) -> list[dict]:
    """Question and answer; the solved examples before them, if any, are never scored.

    most_shots: so many questions are kept for examples, however many are shown.
    read: makes of a row of the data set its `question`, its `choices` (texts), and the place of the
    right one (`answer`), as `_plain` does.
    """
    solved, scored = sets.with_examples(data, source, questions, most_shots)
    first = _ordered(solved[:shots], shot_order)
    prefix = "".join(_solved(map(read, first), form))
    examples = []
    for place, row in enumerate(map(read, scored)):
        prompt, choices = form(row["question"], row["choices"])
        group = "all" if prefix else place
        examples.append(example(prefix + prompt, choices, row["answer"], group))
    return examples


def arc_easy(
    source: str,
    questions: int,
    shots: int,
    shot_order: int,
    form: Form = by_content,
) -> list[dict]:
    """Questions of ARC-Easy's validation split, as `multiple_choice` asks them."""
    of_data = {"data": "arc_easy", "read": _plain, "form": form}
    return multiple_choice(source, questions, shots, shot_order, **of_data)


def arc_easy_test(source: str, questions: int, shots: int) -> list[dict]:
    """Questions of ARC-Easy's test split in the form of `arc_easy`, after its examples."""
    solved, _ = sets.with_examples("arc_easy", source, 0, MOST_SHOTS)
    prefix = "".join(_solved(map(_plain, solved[:shots]), by_content))
    examples = []
    for row in sets.arc_easy_test(source, questions):
        choices = [f" {text}" for text in row["choices"]]
        group = "all" if prefix else row["id"]
        examples.append(example(prefix + row["query"], choices, row["gold"], group))
    return examples


def _plain(row: dict) -> dict:
    """An ARC question in the form of an MMLU one: the texts of its choices, the answer's place."""
    choices = row["choices"]
    return {
        "question": row["question"],
        "choices": choices["text"],
        "answer": choices["label"].index(row["answerKey"]),
    }


def _ordered(shots: list[dict], order: int) -> list[dict]:
    """The solved examples in the order of the data set (0), or shuffled by the seed `order`."""
    return random.Random(order).sample(shots, len(shots)) if order else shots


def c4(source: str, sequences: int, max_tokens: int) -> list[dict]:
    """Documents, each read up to `max_tokens` tokens.

    copies: how often the document is among them; 0 for one that came before. So each document is
    one example, with the weight of all of its copies: the mean is the same, the error honest.
    """
    texts = sets.c4("validation", source, sequences)
    copies = Counter(texts)
    return [
        {"text": text, "max_tokens": max_tokens, "copies": copies.pop(text, 0)} for text in texts
    ]


def hellaswag(source: str, questions: int) -> list[dict]:
    """A story to end. Contexts and endings as lm-eval's task of that name cleans them."""
    examples = []
    for i, row in enumerate(sets.questions("hellaswag", source, questions)):
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        choices = [f" {_without_brackets(ending)}" for ending in row["endings"]]
        examples.append(example(_without_brackets(context), choices, int(row["label"]), i))
    return examples


def _without_brackets(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def gsm8k(source: str, questions: int, shots: int, new_tokens: int | None = None) -> list[dict]:
    """A word problem after solved ones (the same for each); `answer` is the gold solution."""
    solved, scored = sets.gsm8k(source, questions, shots)
    form = "Question: {}\nAnswer:"
    prefix = "".join(f"{form.format(row['question'])} {row['answer']}\n\n" for row in solved)
    examples = []
    for row in scored:
        gold, question = row["answer"], prefix + form.format(row["question"])
        own = example(question, [f" {gold}"], gold, "all")
        examples.append(own | {"new_tokens": new_tokens})
    return examples
