"""What repeats the recorded run in a year: exact versions; and what is to be cited."""

import json
import re
import tomllib

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from replication import paths, profiles

LINES = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINNED = dict(line.split("==") for line in LINES if not line.startswith("#"))
PINNED = {canonicalize_name(name): version for name, version in PINNED.items()}
PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_constraints_pin_what_the_project_asks_for():
    """Every dependency, and one version of each that its range allows; no address, no path."""
    asked = [*PROJECT["dependencies"], *sum(PROJECT["optional-dependencies"].values(), [])]
    for requirement in map(Requirement, asked):
        assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    wrong = [line for line in LINES if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)]
    assert not wrong


def test_constraints_are_those_of_the_recorded_run():
    run = json.loads((paths.RECORDED / profiles.RECORDED / "run.json").read_text(encoding="utf-8"))
    told = run["environment"]
    for name in ("torch", "transformers", "bitsandbytes", "datasets"):
        assert PINNED[name] == told[name].partition("+")[0]
    assert f"Python {told['python'].rpartition('.')[0]}" in "\n".join(LINES)


def test_the_citation_is_that_of_the_readme():
    told = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    readme = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    bibtex = dict(re.findall(r"^  (\w+) += \{(.*)\},?$", readme, re.MULTILINE))
    assert {"cff-version", "message", "title", "authors"} <= set(told)
    assert told["license"] == PROJECT["license"] and told["version"] == PROJECT["version"]
    paper = told["preferred-citation"]
    authors = [f"{a['family-names']}, {a['given-names']}" for a in paper["authors"]]
    assert " and ".join(authors) == bibtex["author"]
    assert paper["title"] == bibtex["title"] and str(paper["year"]) == bibtex["year"]
    assert paper["conference"]["name"] == bibtex["booktitle"]
    assert [i["value"] for i in paper["identifiers"]] == [bibtex["note"]]
