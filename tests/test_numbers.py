"""Numbers that prose quotes are those of the recorded tables, and stand on their pages."""

import json
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import AS_RECORDED

from replication import paths, tables
from replication.beyond import repair
from replication.run import notebooks
from scripts import numbers

NUMBERED = {number: f"notebooks/{of.file}.ipynb" for number, of in notebooks.NOTEBOOKS.items()}
FINDINGS = re.compile(r"^## What we found\n(.*?)(?=^#|\Z)", re.DOTALL | re.MULTILINE)
BARRED = re.compile(r"^> (.+)$", re.MULTILINE)  # a finding within a section
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\dB])")  # not that of Qwen2.5 or of 0.5B
HISTORY = ("PREREGISTERED.md", "LOG.md")  # which say what was known on a day
NOT_MEASURED = {  # decimals in findings that are no measurements of the record
    **dict.fromkeys(["03", "04", "15"], {"0.3"}),  # % of the paper's tokens
    "05": {"0.1"},  # the bound of claim 9b
    "06": {"0.05"},  # of claim 10b
    "08": {"0.01", "0.1"},  # thresholds
    "13": {"0.25"},  # "less than"
}


def prose(page: str) -> str:
    """The text of a page; of a notebook, that of its cells without code."""
    text = (paths.ROOT / page).read_text(encoding="utf-8")
    if page.endswith(".ipynb"):
        cells = nbformat.reads(text, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return text


@pytest.fixture(scope="module")
def quotes():
    return numbers.read()


@pytest.mark.record
def test_the_table_of_numbers_is_what_the_record_says(quotes):
    """`python -m scripts.numbers` renews it."""
    pd.testing.assert_frame_equal(numbers.renewed(quotes), quotes, **AS_RECORDED)


def test_each_number_of_the_table_stands_on_its_page(quotes):
    for page, rows in quotes.groupby("where"):
        text = " ".join(prose(page).split())
        for row in rows.itertuples():
            quoted = rf"(?<![\w.,+-]){re.escape(row.quoted)}(?!\w|[.,]\d)"
            assert re.search(quoted, text), f"{page} does not say {row.quoted} ({row.source})"


@pytest.mark.parametrize("number", ["README", *list(NUMBERED)[1:]])  # the tour has no findings
def test_each_decimal_of_the_findings_is_in_the_table(number, quotes):
    page = NUMBERED.get(number, "README.md")
    (findings,) = FINDINGS.findall(prose(page))
    findings += "\n".join(BARRED.findall(prose(page)))
    quoted = " ".join(quotes.quoted[quotes["where"] == page])
    known = set(DECIMAL.findall(quoted))
    unknown = set(DECIMAL.findall(findings)) - known
    assert unknown == NOT_MEASURED.get(number, set())


def test_a_finding_of_notebook_10_has_at_most_two_decimals_a_sentence():
    """An error or an interval belongs to its number."""
    findings = BARRED.findall(prose(NUMBERED["10"]))
    assert len(findings) > 10
    for sentence in re.split(r"(?<=\.)\s", "\n".join(findings)):
        alone = re.sub(r" ± [\d.]+| \[[\d., ]+\]", "", sentence)
        assert len(DECIMAL.findall(alone)) <= 2, sentence


LAYERS = {name: of.num_layers for name, of in tables.maps(numbers.PROFILE).items()}


def question_and_cut(row: dict) -> tuple:
    """What a recorded score asks of which model, whatever the number of questions."""
    start, size = int(row["block_start"]), int(row["block_size"])
    depth, layers, reading = row.get("depth"), LAYERS[row["model"]], row.get("reading")
    if reading == "letters" and depth < layers:  # an exit there, if nothing else is cut
        start, size = (int(depth), int(layers - depth)) if not size else (start, -1)
    params = json.loads(row["request"])
    mapped = row.get("repair") if row.get("repair") in (*repair.KINDS, "full map") else None
    other = reading if isinstance(reading, str) and reading != "letters" else mapped
    scored = row["model"], row["task"], params.get("shots"), start, size
    return *scored, str(params.get("recipe")), other


@pytest.mark.record
def test_no_page_prints_a_score_of_few_questions_where_all_were_asked(quotes):
    """But pages of what was known on a day; and differences from what only the few were asked."""
    most = {}
    for _, table in tables.read_all(tables.folder(numbers.PROFILE)):
        if {"task", "n", "value", "request"} <= set(table):
            measured = table[table.value.notna() & table.model.isin(LAYERS)]
            for row in measured.drop(columns=["examples", "choices"], errors="ignore").to_dict(
                "records"
            ):
                key = question_and_cut(row)
                most[key] = max(most.get(key, 0), row["n"])
    few = []
    of_tables = quotes[quotes.source.str.contains(".parquet", regex=False)]
    for quote in of_tables[~of_tables["where"].isin(HISTORY)].itertuples():
        rows = [numbers.row_of(source) for source in quote.source.split(" minus ")]
        if all(
            {"request", "task"} <= set(row) and row["n"] < most.get(question_and_cut(row), 0)
            for row in rows
        ):
            few.append((quote.where, quote.quoted, quote.source))
    assert not few


@pytest.mark.record
def test_letters_in_two_tables_differ_only_where_they_are_nearly_tied():
    """bf16 rounds otherwise in another batch; data/README.md says by how much."""
    where = ["model", "task", "strategy", "block_start", "block_size", "depth", "reading"]
    letters = [
        numbers.measured(name).query("reading == 'letters'") for name in ("depths", "option_ends")
    ]
    both = letters[0].merge(letters[1], on=where)
    most_changed, most_apart = 0, 0
    for row in both.itertuples():
        first, second = np.stack(row.choices_x), np.stack(row.choices_y)
        changed = first.argmax(1) != second.argmax(1)
        best = np.sort(first)[:, -2:]
        assert (np.diff(best)[changed] < 0.4).all()  # nats
        most_changed = max(most_changed, changed.sum())
        most_apart = max(most_apart, abs(row.value_x - row.value_y))
    assert f"at most {most_changed} do, and the score changes by at most {most_apart:.3f}" in prose(
        "data/README.md"
    )
