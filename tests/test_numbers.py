"""Numbers that prose quotes are those of the recorded tables, and stand on their pages."""

import re

import nbformat
import pandas as pd
import pytest
from conftest import AS_RECORDED

from replication import paths
from replication.run import notebooks
from scripts import numbers

NUMBERED = {number: f"notebooks/{of.file}.ipynb" for number, of in notebooks.NOTEBOOKS.items()}
FINDINGS = re.compile(r"^## What we found\n(.*?)(?=^#|\Z)", re.DOTALL | re.MULTILINE)
DECIMAL = re.compile(r"(?<![\w.])\d+\.\d+(?![\dB])")  # not that of Qwen2.5 or of 0.5B
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
    quoted = " ".join(quotes.quoted[quotes["where"] == page])
    known = set(DECIMAL.findall(quoted))
    unknown = set(DECIMAL.findall(findings)) - known
    assert unknown == NOT_MEASURED.get(number, set())
