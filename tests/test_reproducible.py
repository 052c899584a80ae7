"""What repeats the recorded run in a year: exact versions."""

import json
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from replication import paths, profiles

LINES = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINNED = dict(line.split("==") for line in LINES if not line.startswith("#"))  # none is an address
PINNED = {canonicalize_name(name): version for name, version in PINNED.items()}
PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_constraints_pin_what_the_project_asks_for():
    """Every dependency, and one version of each that its range allows."""
    required = sum(PROJECT["optional-dependencies"].values(), PROJECT["dependencies"])
    for requirement in map(Requirement, required):
        assert PINNED[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_constraints_are_those_of_the_recorded_run():
    run = json.loads((paths.RECORDED / profiles.RECORDED / "run.json").read_text(encoding="utf-8"))
    for name in ("torch", "transformers", "bitsandbytes", "datasets"):
        assert PINNED[name] == run["environment"][name].partition("+")[0]
