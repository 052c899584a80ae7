"""The questions of each set as text: prompts, choices and answers."""

import random
import re
from collections import Counter
from collections.abc import Iterable
from functools import partial

from lib.data import sets

VERSION = 2  # bumped by hand when a prompt changes
TASK_VERSIONS = {"mmlu_content": 1}  # added to it: changes of one task, its blind prompt included
MOST_SHOTS = 5
LETTERS = "ABCDE"
ABOUT = "The following are multiple choice questions (with answers) about  {}.\n\n"  # two spaces
ABOUT_CONTENT = "The following are questions (with answers) about {}.\n\n"


def mmlu(
    source: str,
    subjects: int,
    questions: int,
    shots: int,
    shot_order: int,
    other_than: int = 0,
    letters: bool = True,
) -> list[dict]:
    """The prompt of Hendrycks et al., to the letter: header, `shots` solved examples, the question.

    other_than: as of `sets.mmlu`, the count of questions that are left out.
    letters: False shows no options, and the answer's text is scored (lm-eval's continuation).
    parts: header, examples, question and choices, from which a prompt that is too long is made
    anew; by content also those by letter (`other_parts`), which is then as short.
    """
    examples = []
    for subject, rows in sets.mmlu(source, subjects, questions, other_than).items():
        solved_rows = _ordered(rows["dev"][:shots], shot_order)
        for row in rows["test"]:
            parts = _mmlu_parts(subject, solved_rows, row, letters)
            header, solved, question, choices = parts
            prompt = header + "".join(solved) + question
            example = _example(prompt, choices, row["answer"], subject)
            example |= {"parts": parts, "weight": 1 / len(rows["test"])}
            if not letters:
                example["other_parts"] = _mmlu_parts(subject, solved_rows, row, letters=True)
            examples.append(example)
    return examples


def _mmlu_parts(subject: str, solved_rows: list[dict], row: dict, letters: bool) -> tuple:
    """Header, solved examples, question and choices of an MMLU prompt, by letter or by content."""
    about, form = (ABOUT, _by_letter) if letters else (ABOUT_CONTENT, _by_content)
    question, choices = form(row["question"], row["choices"])
    header = about.format(subject.replace("_", " "))
    return header, _solved(solved_rows, form), question, choices


def _example(prompt: str, choices: list[str], answer, group) -> dict:
    """A question as `evaluation` takes it; those of a group have a beginning in common."""
    return {"prompt": prompt, "choices": choices, "answer": answer, "group": group, "weight": 1}


def _by_letter(question: str, texts: list[str], moved: int = 0) -> tuple[str, list[str]]:
    """The options are listed, and the choices are their letters.

    moved: each option stands so many places further down, the last ones first. The choices keep
    the order of `texts`.
    """
    places = [(place + moved) % len(texts) for place in range(len(texts))]
    by_place = sorted(zip(places, texts, strict=True))
    listed = "".join(f"\n{LETTERS[place]}. {text}" for place, text in by_place)
    return f"{question}{listed}\nAnswer:", [f" {LETTERS[place]}" for place in places]


def _by_content(question: str, texts: list[str]) -> tuple[str, list[str]]:
    """The choices are the texts of the options, which the question does not show."""
    return f"Question: {question.strip()}\nAnswer:", [f" {text}" for text in texts]


def _by_listed_text(question: str, texts: list[str]) -> tuple[str, list[str]]:
    """The options are listed, and the choices are their texts: between letter and content."""
    prompt, _ = _by_letter(question, texts)
    return prompt, [f" {text}" for text in texts]


def _solved(rows: Iterable[dict], form) -> tuple[str, ...]:
    """Solved examples in a form, each with the blank line after it."""
    solved = []
    for row in rows:
        question, choices = form(row["question"], row["choices"])
        solved.append(f"{question}{choices[row['answer']]}\n\n")
    return tuple(solved)


def boolq(source: str, questions: int, passage: bool = True) -> list[dict]:
    """A question that is answered by no or yes, after its passage or (closed book) without it."""
    examples = []
    for row in sets.questions("boolq", source, questions):
        before = f"{row['passage']}\n" if passage else ""
        prompt = f"{before}Question: {row['question']}?\nAnswer:"
        examples.append(_example(prompt, [" No", " Yes"], int(row["answer"]), None))
    return examples


def sciq(source: str, questions: int, passage: bool = True) -> list[dict]:
    """A school question in science, after the passage that tells the answer or without it."""
    examples = []
    rows = [row for row in sets.questions("sciq", source) if row["support"].strip()]
    for i, row in enumerate(sets.spread(rows, questions)):
        choices = [row["distractor1"], row["distractor2"], row["distractor3"]]
        choices.insert(i % 4, row["correct_answer"])  # the file names it last
        prompt, choices = _by_content(row["question"], choices)
        before = f"{row['support'].strip()}\n" if passage else ""
        examples.append(_example(before + prompt, choices, i % 4, i))
    return examples


def squad(source: str, questions: int, passage: bool = True) -> list[dict]:
    """A question whose answer is a piece of its passage, after that passage or without it."""
    examples = []
    for row in sets.squad(questions):
        before, question = row["query"].rsplit("\nQuestion:", 1)
        prompt = f"{before}\nQuestion:{question}" if passage else f"Question:{question}"
        examples.append(_example(prompt, [f" {row['choices'][0]}"], None, None))
    return examples


def arc_easy(
    source: str, questions: int, shots: int, shot_order: int, form=_by_content, moved: int = 0
) -> list[dict]:
    """Question and answer; the solved examples before them, if any, are never scored.

    form: of a question and the texts of its options, makes a prompt and its choices.
    moved: as of `_by_letter`, of the questions; the examples stay as they are.
    """
    solved, scored = sets.arc_easy(source, questions, MOST_SHOTS)
    first = _ordered(solved[:shots], shot_order)
    prefix = "".join(_solved(map(_plain, first), form))
    form_of_question = partial(form, moved=moved) if moved else form
    examples = []
    for row in map(_plain, scored):
        prompt, choices = form_of_question(row["question"], row["choices"])
        group = "all" if prefix else row["id"]
        examples.append(_example(prefix + prompt, choices, row["answer"], group))
    return examples


def arc_easy_test(source: str, questions: int, shots: int) -> list[dict]:
    """Questions of ARC-Easy's test split in the form of `arc_easy`, after its examples."""
    solved, _ = sets.arc_easy(source, 0, MOST_SHOTS)
    prefix = "".join(_solved(map(_plain, solved[:shots]), _by_content))
    examples = []
    for row in sets.arc_easy_test(questions):
        choices = [f" {text}" for text in row["choices"]]
        group = "all" if prefix else row["id"]
        examples.append(_example(prefix + row["query"], choices, row["gold"], group))
    return examples


mmlu_content = partial(mmlu, letters=False)
arc_easy_letters = partial(arc_easy, form=_by_letter)
arc_easy_listed = partial(arc_easy, form=_by_listed_text)


def _plain(row: dict) -> dict:
    """An ARC question in the form of an MMLU one: the texts of its choices, the answer's place."""
    choices = row["choices"]
    return {
        "id": row["id"],
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
        examples.append(_example(_without_brackets(context), choices, int(row["label"]), i))
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
        example = _example(question, [f" {gold}"], gold, "all")
        examples.append(example | {"new_tokens": new_tokens})
    return examples
