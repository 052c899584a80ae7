"""Rows of the ledger: made, checked, drawn; ours, made-up and broken ones."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import isotonic_regression

from replication import paths, profiles
from replication.measure import cache, signals
from replication.row import __main__ as command
from replication.row import build, check, experiments, figure
from scripts import readme, rows

FILES = sorted(check.ROWS.glob("*.json"))
LARGE, SMALL, SMOLLM2 = "qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b", "smollm2-135m"


def recorded(table: str, model: str, **chosen) -> pd.DataFrame:
    """Return rows of a recorded table as pandas reads it."""
    rows = pd.read_parquet(paths.RECORDED / "overnight" / f"{table}.parquet")
    rows = rows[(rows.model == model) & (rows.get("treatment") != "healed")]
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    return rows


def row(model: str) -> dict:
    return check.read(check.ROWS / f"{model}.json")


# ---- our rows --------------------------------------------------------------------------------


def test_rows_of_the_record_are_made_again_of_its_tables():
    for name, made in rows.recorded().items():
        assert (check.ROWS / f"{name}.json").read_text() == check.text(made), name


def share_right(score: pd.Series, less=0.0) -> float:
    """Return the weighted share of right answers, from the log-likelihoods by hand."""
    right = [
        float((choices - less).argmax() == answer)
        for choices, answer in zip(score.choices, score.answers, strict=True)
    ]
    return float(np.average(right, weights=score.weights))


def half_lost_by_hand(scores: pd.DataFrame, strategy: str) -> float:
    """Return where the monotone line through the shares lost passes one half."""
    whole = scores[scores.block_size == 0].iloc[0]
    cuts = scores[scores.strategy == strategy].sort_values("fraction")
    lost = (whole.value - cuts.value.to_numpy()) / (whole.value - whole.floor)
    lost = isotonic_regression([0, *lost]).x
    at = np.array([0, *cuts.fraction])
    after = int(np.argmax(lost > 0.5))
    step = (0.5 - lost[after - 1]) / (lost[after] - lost[after - 1])
    return at[after - 1] + step * (at[after] - at[after - 1])


def test_numbers_of_the_larger_qwen_come_back_by_other_arithmetic():
    of, near = row(LARGE), {"abs": 1e-4}
    other = recorded("letter_biases", LARGE, questions="other", strategy="early exit", block_size=6)
    (exit_of_6,) = (score for _, score in other.iterrows())
    answers = of["exit"]["mmlu"]
    assert answers["dropped"] == 6 and answers["n"] == 285 == len(exit_of_6.answers)
    assert answers["as_given"]["value"] == pytest.approx(share_right(exit_of_6), **near)
    given = np.array([choices.argmax() for choices in exit_of_6.choices])
    assert (given == 0).sum() == 282 and answers["commonest"] == "A"
    assert answers["share"] == pytest.approx(282 / 285, **near)
    arc = recorded("forms", LARGE, task="arc_easy_letters", strategy="early exit", block_size=6)
    four = [c - c.mean() for c in arc.choices.iloc[0] if len(c) == 4]
    means = np.average(four, axis=0)  # ARC-Easy's questions weigh alike
    removed = share_right(exit_of_6, less=means)
    assert answers["other_means_removed"]["value"] == pytest.approx(removed, **near)
    mmlu = recorded("exits", LARGE, task="mmlu")
    for strategy, lost in of["half_lost"]["mmlu"].items():
        assert lost["value"] == pytest.approx(half_lost_by_hand(mmlu, strategy), **near)
    ends = recorded("option_ends", LARGE, task="arc_easy_letters", block_size=0)
    for name, reading in {"options": "at the options", "last_token": "at the last token"}.items():
        by_depth = ends[ends.reading == reading].set_index("depth").value.sort_index()
        lead = by_depth - 0.25
        first = int(lead.index[lead >= lead.max() / 2][0])
        assert of["depth"][name]["value"] == first, name


def test_numbers_of_the_smaller_qwen_come_back_by_other_arithmetic():
    of, near = row(SMALL), {"abs": 1e-4}
    letters = recorded("second_model", SMALL, task="arc_easy_letters")
    lost = of["half_lost"]["arc_easy_letters"]
    for strategy in ("similarity", "early exit"):
        by_hand = half_lost_by_hand(letters, strategy)
        assert lost[strategy]["value"] == pytest.approx(by_hand, **near)
    assert of["half_lost"]["arc_easy"]["similarity"]["value"] is None  # beyond 6 of 24 layers
    assert of["half_lost"]["arc_easy"]["similarity"]["low"] == 0.25
    exit_of_4 = letters[(letters.strategy == "early exit") & (letters.block_size == 4)].iloc[0]
    four = [i for i, choices in enumerate(exit_of_4.choices) if len(choices) == 4]
    given = np.mean([exit_of_4.choices[i].argmax() == exit_of_4.answers[i] for i in four])
    answers = of["exit"]["arc_easy_letters"]
    assert answers["as_given"]["value"] == pytest.approx(given, abs=5e-4)
    assert of["missing"]["half_lost.arc_easy.simple"] == "not in the recorded run"


def test_numbers_of_smollm2_come_back_by_other_arithmetic():
    of, near = row(SMOLLM2), {"abs": 1e-4}
    content = recorded("exits", SMOLLM2, task="arc_easy")
    whole = content[content.block_size == 0].iloc[0]
    assert of["whole"]["arc_easy"]["value"] == pytest.approx(
        np.average(whole.examples, weights=whole.weights), **near
    )
    for strategy, lost in of["half_lost"]["arc_easy"].items():
        assert lost["value"] == pytest.approx(half_lost_by_hand(content, strategy), **near)
    texts = recorded("unhealed", SMOLLM2, task="c4", strategy="similarity", block_size=3).iloc[0]
    loss = np.average(texts.examples, weights=texts.weights)
    assert of["loss"]["3"]["similarity"]["value"] == pytest.approx(loss, **near)
    assert of["can_answer"] == ["arc_easy"]
    assert "floor" in of["missing"]["exit.mmlu"]  # it says why it has no letters


# ---- files that others send ------------------------------------------------------------------


def made_up() -> dict:
    return deepcopy(row(LARGE)) | {"model": "someone/new-model", "profile": "row"}


def changed(path: str, value) -> dict:
    """Return a made-up row with another value at a path; `del`: without it."""
    of = made_up()
    *places, last = path.split(".")
    inner = of
    for place in places:
        inner = inner[place]
    if value is del_:
        del inner[last]
    else:
        inner[last] = value
    return of


del_ = object()
BROKEN = {  # a path, its value, what the sentence says
    "a part is not there": ("depth", del_, "'depth' is a required property"),
    "a number is not there": ("exit.mmlu.n", del_, "'n' is a required property"),
    "an accuracy above 1": ("whole.mmlu.value", 1.2, "whole.mmlu.value: 1.2 is greater"),
    "too few questions": ("exit.mmlu.n", 12, "12 is less than the minimum of 30"),
    "a value outside its ends": ("half_lost.mmlu.simple.value", 0.9, "does not lie between"),
    "null without a reason": ("exit.mmlu", None, "`missing` does not say why"),
    "a reason for a number": ("missing.depth", "why", "and it is not"),
    "another schema": ("schema", 2, "schema: 1 was expected"),
    "a strange part": ("whole.boolq", None, "'boolq' was unexpected"),
    "a number as text": ("loss.3.simple.value", "4.2", "is not of type"),
    "no n": ("half_lost.mmlu.simple.n", del_, "'n' is a required property"),
    "a strange commit": ("commit", "yesterday", "commit: 'yesterday' does not match"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_refused_in_one_sentence(name, tmp_path, monkeypatch, capsys):
    """By the command that draws all rows, too; it leaves figure and rows as they were."""
    path, value, sentence = BROKEN[name]
    file = tmp_path / "someone-new-model.json"
    file.write_text(json.dumps(changed(path, value)))
    with pytest.raises(check.RowError, match=sentence):
        check.read_all(tmp_path)
    monkeypatch.setattr(check, "ROWS", tmp_path)
    monkeypatch.setattr(rows, "recorded", dict)
    before = (paths.ROOT / "figures" / "rows.csv").read_bytes()
    assert rows.main() == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("someone-new-model.json: ") and said.endswith(".")
    assert (paths.ROOT / "figures" / "rows.csv").read_bytes() == before


@pytest.mark.parametrize("text", ["", "[1]", '{"schema": NaN}', "{"])
def test_a_file_that_is_no_row_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(check.RowError, match="^a.json: "):
        check.read_all(tmp_path)


def test_a_made_up_row_is_accepted_and_drawn(tmp_path):
    """Beside ours: in figure and table, by its name; a file of another name is refused."""
    file = check.write(made_up(), tmp_path)
    assert file.name == "someone-new-model.json"
    all_rows = {of.stem: check.read(of) for of in (*FILES, file)}
    drawn = figure.figure_rows(all_rows)
    assert len(drawn.axes) == 6
    assert set(drawn.table.model) == {LARGE, SMALL, SMOLLM2, "someone/new-model"}
    assert "new-model" in [label.get_text() for label in drawn.axes[0].get_yticklabels()]
    assert "| new-model |" in figure.table(all_rows)
    file.rename(tmp_path / "other.json")
    with pytest.raises(check.RowError, match="name the file after it"):
        check.read_all(tmp_path)


def test_another_measurement_of_a_model_keeps_both_rows(tmp_path):
    first, again = made_up(), made_up() | {"dtype": "float16"}
    assert check.write(first, tmp_path) == check.write(first, tmp_path)
    assert check.write(first, tmp_path) != check.write(again, tmp_path)
    kept = check.read_all(tmp_path)
    assert {of["dtype"] for of in kept.values()} == {"bfloat16", "float16"}
    names = figure.labels(kept).values()
    assert len(set(names)) == 2


def test_pages_and_picture_show_every_row():
    drawn = pd.read_csv(paths.ROOT / "figures" / "rows.csv")
    assert set(drawn.model) == {of["model"] for of in check.read_all().values()}
    assert readme.ledger() in (paths.ROOT / "figures" / "README.md").read_text()


# ---- make row --------------------------------------------------------------------------------


@pytest.fixture
def ledger(output, monkeypatch):
    monkeypatch.setattr(paths, "OUTPUT", output)
    return output / "data" / "rows"


@pytest.fixture
def few(monkeypatch):
    """As little as a row may have: 30 of each, without examples."""
    counts = {"similarity_sequences": 30, "c4_sequences": 30, "arc_easy_questions": 32}
    counts |= {"mmlu_subjects": 6, "mmlu_questions": 5, "mmlu_shots": 0}
    counts |= {"similarity_tokens": 16, "c4_tokens": 8}
    monkeypatch.setitem(profiles.PROFILES, "row", replace(profiles.PROFILES["row"], **counts))


def test_a_row_is_made_of_what_the_model_can_answer(ledger, few, capsys, monkeypatch):
    """Whether it can is said first. A second run measures nothing; one of a model with letters
    (here their numbers say nothing) asks what is missing."""
    arguments = ["tiny-random", "--dtype", "float32"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("tiny random Llama does not clearly answer ARC-Easy by letter")
    (file,) = ledger.iterdir()
    of = check.read(file)
    assert of["can_answer"] == [] and of["depth"] is None
    assert "floor" in of["missing"]["half_lost.mmlu.simple"]
    assert of["loss"]["whole"]["n"] == of["islands"]["n"] == 30
    with monkeypatch.context() as patch:
        patch.setattr(cache, "save", None)
        assert command.main(arguments) == 0
    monkeypatch.setattr(command, "gate", lambda name, profile: list(experiments.BY_LETTER))
    for module in (build, signals):
        monkeypatch.setattr(module, "SIGNAL", -100)
    assert command.main(arguments) == 0
    of = check.read(file)
    missing = [why for path, why in of["missing"].items() if not path.startswith("exit.")]
    assert not {build.NOT_ASKED, command.NOT_ANSWERED} & set(missing)
    assert of["depth"]["n"] >= 30 and of["half_lost"]["mmlu"]["simple"]


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["no-such-model"], "Unknown model 'no-such-model'"),
        (["tiny-random", "--limit", "5"], "LIMIT must be at least 30"),
        (["tiny-random", "--plan", "--card", "abacus"], "Unknown card"),
    ],
)
def test_bad_input_ends_in_one_sentence(arguments, sentence, ledger, capsys):
    assert command.main(arguments) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert sentence in said and not ledger.exists()


def test_a_3b_takes_an_evening_of_a_t4_at_most():
    """By the plan, and it fits; the probes of a CPU are beside it."""
    text = command.plan_of(profiles.get("row", ["llama-3.2-3b"]), "t4")
    minutes, memory = text.split(" minutes, ")
    count = int(minutes.split(": ")[1])
    assert count < 240
    assert f"a 3B {count} minutes of a T4" in (paths.ROOT / "CONTRIBUTING.md").read_text()
    assert float(memory.split(" GB")[0]) < 14.5
