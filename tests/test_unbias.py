"""lm-eval's sample logs, made from the record: our own table's numbers come back."""

import json

import numpy as np
import pandas as pd
import pytest

from lib.evaluation import weighted_mean
from replication import paths, tables, unbias

MODEL = "qwen2.5-coder-1.5b"


@pytest.fixture(scope="module")
def recorded() -> pd.DataFrame:
    table = tables.read_file(paths.RECORDED / "overnight" / "letter_biases.parquet")
    return table[(table.model == MODEL) & table.value.notna()]


def sample(number: int, loglikelihoods, answer: int, **changes) -> dict:
    """A line of lm-eval 0.4.13's log, as `evaluator.py` and `evaluation_tracker.py` write it."""
    pairs = [[str(float(value)), "False"] for value in loglikelihoods]
    prompts = [{"arg_0": f"Question {number}\nAnswer:", "arg_1": f" {letter}"} for letter in "ABCD"]
    line = {"doc_id": number, "doc": {"question": str(number)}, "target": str(answer)}
    line["arguments"] = {f"gen_args_{i}": prompt for i, prompt in enumerate(prompts)}
    line |= {"resps": [[pair] for pair in pairs], "filtered_resps": pairs, "filter": "none"}
    return line | {"acc": float(np.argmax(loglikelihoods) == answer)} | changes


def write(folder, samples: list[dict], task: str = "mmlu_anatomy"):
    file = folder / f"samples_{task}_2026-12-01T10-00-00.000000.jsonl"
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in samples))
    return file


def logs(folder, score) -> list[str]:
    """A file a subject, as of five questions each, in which later questions come first."""
    pairs = list(zip(score.choices, score.answers, strict=True))
    files = []
    for subject in range(len(pairs) // 5):
        of_subject = pairs[5 * subject : 5 * subject + 5]
        lines = [sample(number, *pair) for number, pair in enumerate(of_subject)]
        files.append(str(write(folder, lines[::-1], f"mmlu_subject_{subject:02}")))
    return files


def row(table: pd.DataFrame, strategy: str, size: int, questions: str) -> pd.Series:
    of_cut = (table.strategy == strategy) & (table.block_size == size)
    return table[of_cut & (table.questions == questions)].iloc[0]


@pytest.mark.parametrize(
    "strategy, size", [("none", 0), ("early exit", 4), ("early exit", 6), ("similarity", 6)]
)
@pytest.mark.parametrize("questions", ["recorded", "other"])
def test_logs_of_the_record_give_the_numbers_of_our_table(
    recorded, tmp_path, capsys, strategy, size, questions
):
    """As given by the score itself; means removed and the paired error by a second computation."""
    score = row(recorded, strategy, size, questions)
    assert unbias.main(logs(tmp_path, score)) == 0
    shown = capsys.readouterr().out
    values, answers = np.stack(score.choices), np.array(score.answers)
    relative, folds = values - values.mean(axis=1, keepdims=True), np.arange(len(values)) % 5
    others = np.stack([relative[folds != fold].mean(axis=0) for fold in folds])
    right = (relative - others).argmax(axis=1) == answers
    unbiased, error = weighted_mean(right * 1.0, np.ones(len(right)))
    assert f"as given:       {score.value:.3f} ± {score.standard_error:.3f}" in shown
    assert f", {round(score.commonest * score.n)} of {score.n} " in shown.split("means")[0]
    assert f"means removed:  {unbiased:.3f} ± {error:.3f}" in shown
    gains = right - score.examples
    paired = gains.std(ddof=1) / np.sqrt(len(gains))
    assert f"gained:         {gains.mean():+.3f} ± {paired:.3f}" in shown


def test_the_findings_of_the_first_page_come_from_logs(recorded, tmp_path, capsys):
    """README's finding 4: 282 of 285 A's, 0.26 as given, 0.47 with means removed."""
    unbias.main(logs(tmp_path, row(recorded, "early exit", 6, "other")))
    lines = capsys.readouterr().out.splitlines()
    given, unbiased = (float(line.split()[2]) for line in lines[1:3])
    assert (round(given, 2), round(unbiased, 2)) == (0.26, 0.47) and "A, 282 of 285" in lines[1]


VALUES = [-1.0, -2.0, -3.0, -4.0]
BAD = {  # what stands in the second line, and the words that say what is wrong
    "not JSON": ("{", "no question of a multiple-choice task"),
    "not a text": ("\xff\xfe", "no question of a multiple-choice task"),
    "not a sample": ("[1]", "no question of a multiple-choice task"),
    "by content": (
        sample(1, VALUES, 0, arguments=[["Question", f" text {i}"] for i in range(4)]),
        "the choices are ['text 0'",
    ),
    "generated": (
        sample(1, VALUES, 0, arguments={"gen_args_0": {"arg_0": "Q", "arg_1": {"until": []}}}),
        "no question of a multiple-choice task",
    ),
    "no target": (sample(1, VALUES, 0, target="none"), "no question of a multiple-choice task"),
    "target beyond": (sample(1, VALUES, 4), "no question of a multiple-choice task"),
    "other target": (sample(1, VALUES, 1, acc=1.0), "lm-eval scored 1.0"),
    "overflow": (sample(1, [float("nan")] * 4, 0), "have the log-likelihoods [nan"),
    "a choice less": (
        sample(1, VALUES, 0, filtered_resps=[["-1.0", "False"]] * 3),
        "4 letters have the log-likelihoods",
    ),
    "few": (sample(1, VALUES, 0), "2 questions with 4 letters, and at least 30"),
}


@pytest.mark.parametrize("line, words", BAD.values(), ids=BAD)
def test_a_bad_file_ends_in_one_sentence(tmp_path, capsys, line, words):
    file = write(tmp_path, [sample(0, VALUES, 0)])
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_bytes(file.read_bytes() + text.encode("latin-1") + b"\n")
    assert unbias.main([str(file)]) == 2
    out, error = capsys.readouterr()
    assert not out and words in error and error.count("\n") == 1


def test_a_missing_file_and_two_runs_at_once_end_in_one_sentence(tmp_path, capsys):
    file = write(tmp_path, [sample(0, VALUES, 0)])
    other = file.with_name("samples_mmlu_anatomy_2026-12-02T10-00-00.000000.jsonl")
    for files, words in (([file.with_name("no.jsonl")], "no.jsonl"), ([file, other], "one run")):
        other.write_text(file.read_text())
        assert unbias.main([str(file) for file in files]) == 2
        out, error = capsys.readouterr()
        assert not out and words in error and error.count("\n") == 1


def test_lists_as_older_versions_wrote_them_and_letters_as_targets_are_read(tmp_path):
    """Plain lists and numbers, a line for each filter, and a line break within a question."""
    pairs = [[value, False] for value in VALUES]
    arguments = [["Question", f" {letter}"] for letter in "ABCD"]
    old = sample(0, VALUES, 1, filtered_resps=pairs, arguments=arguments, target=" B")
    old["doc"] = {"question": "one\u2028question"}
    score = unbias.read([write(tmp_path, [old, old | {"filter": "other"}])])
    assert score["answers"] == [1] and score["choices"][0].tolist() == VALUES
