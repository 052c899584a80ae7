"""Verdicts as tables: every one, and the 13 claims with lights or in words."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from replication.claims.bounds import LIGHTS, Verdict

SENTENCES = Path(__file__).with_name("sentences.csv")
TASKS = {"mmlu": "MMLU", "arc_easy": "ARC-Easy", "arc_easy_test": "ARC-Easy"}
TASKS |= {"hellaswag": "HellaSwag", "gsm8k": "GSM8K", "c4": "C4"}
COUNTED = {  # a light, and the word for it; the firmest come first
    "●✓": "agrees",
    "◐✓": "points to it",
    "●✗": "differs",
    "◐✗": "points against it",
    "○": "open",
    "–": "not testable",
}
SIDES = {"for it": ("●✓", "◐✓"), "against it": ("●✗", "◐✗")}  # decided, pointing there
SIDES |= {"open": ("○",), "not testable": ("–",)}


def markdown(verdicts: Sequence[Verdict]) -> str:
    """Every verdict as a row of a table."""
    lines = [
        "| | the paper says | measured, and when it holds | value (95 % interval) | verdict |",
        "|---|---|---|---|---|",
    ]
    for verdict in verdicts:
        where = f"({verdict.where})" if verdict.where else ""
        reason = f": {verdict.why}" if verdict.why else ""
        cells = [
            verdict.claim,
            verdict.statement,
            verdict.criterion,
            " ".join(filter(None, [verdict.numbers, where])),
            f"{verdict.light} **{verdict.verdict}**{reason}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def light_table(judged: pd.DataFrame) -> pd.DataFrame:
    """The claims as sentences, a row each, and the lights of their parts, a column a model.

    judged: a row a verdict, with the columns claim, model (empty: not run) and light.
    """
    claim = judged.claim.str.rstrip("abcde").astype(int)
    model = judged.model.replace("", None)
    part = judged.claim.str.lstrip("0123456789") + judged.light
    lights = part.groupby([claim, model], sort=False).agg(" ".join).unstack()
    sentences = pd.read_csv(SENTENCES, index_col="claim")
    table = sentences.rename(columns={"sentence": "the paper says"})
    return table.join(lights).fillna("")


def lights(verdicts: Sequence[Verdict]) -> str:
    """The 13 claims as sentences, and a column of lights a model; below it what they mean."""
    rows = [(verdict.claim, verdict.model, verdict.light) for verdict in verdicts]
    table = light_table(pd.DataFrame(rows, columns=["claim", "model", "light"]))
    lines = [f"| | {' | '.join(table)} |", "|---" * (1 + len(table.columns)) + "|"]
    for cells in table.itertuples():
        lines.append(f"| {' | '.join(map(str, cells))} |")
    signs = ", ".join(f"{sign} {name}" for name, sign in list(LIGHTS.items())[:4])
    legend = f"a, b, … are parts of a claim. ✓ agrees with the paper, ✗ differs; {signs}."
    return "\n".join(lines) + f"\n\n{legend} Empty: not measured, or not about this model.\n"


def in_words(verdicts: Sequence[Verdict]) -> str:
    """The 13 claims, a row each: the verdict in words, and the models and tasks that it is about.

    Verdicts are counted: a claim has one for each of its parts and models.
    """
    lines = ["| | the paper says | here | on |", "|---|---|---|---|"]
    for claim, sentence in pd.read_csv(SENTENCES).itertuples(index=False):
        mine = [v for v in verdicts if v.model and int(v.claim.rstrip("abcde")) == claim]
        where = {}
        for one in mine:
            where.setdefault(one.model, {})[TASKS.get(one.task)] = None
        on = [f"{model} ({', '.join(filter(None, tasks))})" for model, tasks in where.items()]
        here = f"**{together(mine)}**: {_counts(mine)}" if mine else "not measured"
        lines.append(f"| {claim} | {sentence} | {here} | {'; '.join(on).replace(' ()', '')} |")
    return "\n".join(lines) + "\n"


def _counts(verdicts: Sequence[Verdict]) -> str:
    """How many verdicts are on each of SIDES, and how many of them are decided."""
    lights = [verdict.light for verdict in verdicts]
    counts = []
    for side, of_side in SIDES.items():
        count = sum(light in of_side for light in lights)
        decided = lights.count(of_side[0]) if len(of_side) > 1 else 0
        text = f"{count} {side}" + (f" ({decided} decided)" if decided else "")
        counts += [text] if count else []
    return ", ".join(counts)


def together(verdicts: Sequence[Verdict]) -> str:
    """What several verdicts say: the firmest word of COUNTED, or "mixed" if they contradict."""
    if len({verdict.direction for verdict in verdicts if verdict.direction}) == 2:
        return "mixed"
    lights = {verdict.light for verdict in verdicts}
    return next(word for light, word in COUNTED.items() if light in lights)
