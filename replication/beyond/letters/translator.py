"""Is the answer lost at an early exit, or only not read out? A linear map translates its states.

Notebook 10. An exit hands the state before the cut to the final norm and lm_head, which were
trained on the state after the last layer. A full linear map in place of the exit's layers
translates between both, as the tuned lens does (Belrose et al., arXiv 2303.08112). It is fitted on
texts of C4, without any question (`healing.linear`). Also here: options that are called P, Q, R and
S, or a, b, c and d.
"""

from dataclasses import replace
from functools import partial
from math import ceil

import pandas as pd

from lib.data import prompts
from lib.evaluation import TASK_SPECS
from replication.beyond import repair
from replication.beyond.letters.biases import IN_A_SUBJECT, OTHER, mmlu_other, readouts
from replication.beyond.letters.formats import ARC_EASY_BY_LETTER
from replication.measure.experiments import cuts, unpruned
from replication.measure.question import Question
from replication.measure.request import Request, mapped
from replication.profiles import Profile
from replication.tables import grouped

CONTENT = "arc_easy"
EXITS = range(3, 9)  # layers dropped
TEXTS = 96  # of C4, to fit on, at most
VERSION = 2  # bumped by hand when the numbers change; 1 was fitted on pieces of Wikipedia, too
EXIT, TRANSLATED = "plain cut", "full map"  # values of the column repair
BY_LETTER = {"mmlu": "mmlu", "mmlu_short": "mmlu_short", "arc_easy": "arc_easy_letters"}
SYMBOLS = {"symbols": "PQRST", "lower": "abcde"}  # by the ends of their tasks' names
NAMES = "A to D", "P to S", "a to d"  # values of the column symbols
CUT = ["model", "symbols", "strategy", "block_size", "repair"]


def mmlu_short(*args, **options) -> list[dict]:
    """Return those of `mmlu_other` of the half of its subjects whose prompts are shortest."""
    of_subject = grouped(mmlu_other(*args, **options), lambda example: example["group"]).values()
    by_length = sorted(of_subject, key=lambda examples: sum(len(one["prompt"]) for one in examples))
    shortest = by_length[: ceil(len(by_length) / 2)]
    return sum(shortest, [])


SHORT = replace(OTHER, build=mmlu_short, label="MMLU (half of the subjects) by letter")
OWN_TASKS = {"mmlu_short": SHORT}
USUAL = {"mmlu": TASK_SPECS["mmlu"], "mmlu_short": SHORT, "arc_easy": ARC_EASY_BY_LETTER}
for questions, usual in USUAL.items():
    for ending, symbols in SYMBOLS.items():
        OWN_TASKS[f"{questions}_{ending}"] = replace(
            usual,
            build=partial(usual.build, form=partial(prompts.by_letter, letters=symbols)),
            signal_task=usual.signal_task or BY_LETTER[questions],
            label=f"{usual.label} ({symbols[0]} to {symbols[3]})",
        )


def by_symbol(questions: str) -> list[str]:
    """Return the tasks that ask a question set by A to D, P to S and a to d."""
    return [BY_LETTER[questions], *(f"{questions}_{ending}" for ending in SYMBOLS)]


def translated(name: str, distances, profile: Profile) -> list[Request]:
    """Return each task at every exit, as it is and translated, of the profile's `question_models`;
    column repair.

    ARC-Easy as `letters.forms` asks it; the loss of half of the damage map's texts.
    """
    is_asked = profile.ablation_questions and profile.map_sequences
    if name not in profile.question_models or not is_asked:
        return []
    few_shot = profile.with_prompt(profile.mmlu_shots)
    texts = max(2, profile.damage_sequences // 2)  # one has no standard error
    has_others = 2 * profile.mmlu_questions <= IN_A_SUBJECT
    mmlu, mmlu_profile = ("mmlu_short", profile) if has_others else ("mmlu", few_shot)
    profile_of = dict.fromkeys([CONTENT, *by_symbol("arc_easy")], few_shot)
    profile_of["c4"] = replace(profile, c4_sequences=texts, c4_tokens=profile.damage_tokens)
    profile_of |= dict.fromkeys(by_symbol(mmlu), mmlu_profile)
    sizes, requested = [size for size in EXITS if size < distances.num_layers], []
    for task, task_profile in profile_of.items():
        plain = unpruned(name, task_profile, [task], repair="unpruned")
        plain += cuts(name, distances, task_profile, [task], ["early exit"], sizes, repair=EXIT)
        requested += [_with_map(cut, task_profile, "none") for cut in plain]
        requested += [_with_map(cut, task_profile, "full", repair=TRANSLATED) for cut in plain[1:]]
    return requested


def _with_map(cut: Request, profile: Profile, kind: str, **labels) -> Request:
    """Return the request of a cut with a map of `kind` in its place; "none": of the cut itself."""
    name, task = cut.params["model"], cut.params["task"]
    params = mapped(name, profile, task, cut.block, kind).params
    params |= {"map_sequences": min(TEXTS, profile.map_sequences), "translator_version": VERSION}
    return Request("translator", params, cut.labels | labels)


def scores_by_letter(
    letter_biases: pd.DataFrame, forms: pd.DataFrame, translated: pd.DataFrame
) -> pd.DataFrame:
    """Return all scores by letter that are not healed, as `biases.readouts` takes them, by CUT.

    Of a cut, no two sets of questions share one: MMLU's fewer questions, which are among the
    others, are left out where all of these are asked.
    """
    by_letter = forms[(forms.form == "letters") & (forms.treatment != "healed")]
    is_arc = by_letter.questions == "arc_easy"
    sets = by_letter.questions.map({"arc_easy": "ARC-Easy", "mmlu": "MMLU, few"})
    by_letter = by_letter.assign(questions=sets)[is_arc | (by_letter.strategy == "simple")]
    tables = [table.assign(symbols=NAMES[0]) for table in (letter_biases, by_letter)]
    for questions, by_capitals in BY_LETTER.items():
        name = "ARC-Easy" if questions == "arc_easy" else "MMLU, few"
        for task, symbols in zip(by_symbol(questions), NAMES, strict=True):
            rows = translated[translated.task == task]
            if task == by_capitals != "arc_easy_letters":
                rows = rows[rows.repair == TRANSLATED]
            tables.append(rows.assign(questions=name, symbols=symbols))
    scores = pd.concat(tables, ignore_index=True)
    is_whole = scores.block_size == 0
    return scores.assign(repair=scores.repair.fillna(EXIT).mask(is_whole, "unpruned"))


def readouts_after_exit(
    letter_biases: pd.DataFrame, forms: pd.DataFrame, translated: pd.DataFrame, size: int
) -> pd.DataFrame:
    """Return what readouts of MMLU's letters answer on ARC-Easy after an exit of `size` layers, as
    `biases.readouts`; the tables are those of `scores_by_letter`."""
    scores = scores_by_letter(letter_biases, forms, translated)
    is_exit = (scores.strategy == "early exit") & (scores.repair == EXIT)
    read = readouts(scores[is_exit & (scores.block_size == size)], CUT)
    read = read.reindex(columns=[*CUT, "fitted_on", "judged_on", "value", "null"])
    return read[read.judged_on == "ARC-Easy"]


# ---- the question ----------------------------------------------------------------------------

QUESTION = Question(
    "10_letters_and_content",
    tasks=OWN_TASKS,
    experiments=(translated,),
    kinds={"translator": repair.measure_mapped},
    tables={"translated": repair.table},
)
