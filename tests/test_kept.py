"""No committed expectation, outcome or recorded result has left (tests/kept.csv)."""

import subprocess

import pandas as pd

from lib import storage
from replication import paths
from scripts import kept

ENTRY = """## A day: a question

- *Asked*: one.
- *Expected*: at least 0.4 after six of the layers that the rule of the paper drops,
  or the same. *Against it*: below 0.2.
- *Came*: **0.3**.
"""


def test_nothing_that_was_committed_has_left():
    """`python -m scripts.kept` adds what is new; new things alone are no failure."""
    page = kept.PAGE.read_text(encoding="utf-8")
    assert not kept.gone(kept.kept(), kept.there(page, paths.RECORDED))


def test_no_row_of_the_list_was_ever_removed():
    """As far as git's history is at hand."""
    command = ["git", "-C", paths.ROOT, "log", "-p", "--format=", "--", kept.FILE]
    history = subprocess.run(command, capture_output=True, text=True).stdout
    removed = {line[1:] for line in history.splitlines() if line[:1] == "-" and line[:3] != "---"}
    assert removed <= set(kept.FILE.read_text(encoding="utf-8").splitlines())


def test_every_known_error_has_its_place_and_its_test():
    """tests/mutations.csv: else nothing is tried, and the error passes for caught."""
    for row in storage.rows(paths.ROOT / "tests" / "mutations.csv"):
        assert (paths.ROOT / row["file"]).read_text().count(row["old"]) == 1, row["name"]
        for test in row["test"].split():
            file, _, function = test.partition("::")
            test_file = (paths.ROOT / file).read_text()
            assert f"def {function.split('[')[0]}" in test_file, row["name"]


def gone(rows, page, folder) -> list[str]:
    return kept.gone(rows, kept.there(page, folder))


def test_an_edit_of_an_expectation_is_seen_and_a_line_behind_it_is_none(tmp_path):
    rows = kept.added([], kept.there(ENTRY, tmp_path))
    assert [row["what"][:9] for row in rows] == ["*Expected", "*Against ", "*Came*: *"]
    assert not gone(rows, ENTRY, tmp_path)
    for added in (" **Edit**: of 12 layers.", "\n- *Came*, later: 0.2.", "\n\n## Another day\n"):
        assert not gone(rows, ENTRY.rstrip() + added, tmp_path)
    assert not gone(rows, "A table.\n\n" + ENTRY.replace("one", "two"), tmp_path)
    for part in ("at least", "or the same.", "0.2", "**0.3**"):
        assert len(gone(rows, ENTRY.replace(part, ""), tmp_path)) == 1, part
    assert len(gone(rows, "", tmp_path)) == 3


def test_a_result_leaves_the_record_only_for_a_new_version_of_itself(tmp_path):
    file = tmp_path / "overnight" / "scores.parquet"
    file.parent.mkdir()

    def recorded(blocks, value=0.5, version=1) -> dict:
        request = '{{"kind": "scores", "block_start": {}, "questions": {}, "version": {}}}'
        requests = [request.format(block, 10 * version, version) for block in blocks]
        pd.DataFrame({"request": requests, "value": value}).to_parquet(file)
        return kept.there("", tmp_path)

    rows = kept.added([], recorded([1, 2]))
    assert not kept.gone(rows, recorded([1, 2], version=2))
    assert not kept.gone(rows, recorded([1, 2, 3]))
    assert kept.gone(rows, recorded([1]))
    assert kept.gone(rows, recorded([1, 3]))  # as many, but others
    assert kept.gone(rows, recorded([1, 2], value=None))  # asked no more
    later = rows + kept.added(rows, recorded([1, 2, 3]))
    assert len(later) == 2 and later[0] == rows[0]
    assert kept.gone(later, recorded([1, 2]))
    assert not kept.added(later, recorded([1, 2, 3]))
    file.unlink()
    assert kept.gone(rows, kept.there("", tmp_path))
