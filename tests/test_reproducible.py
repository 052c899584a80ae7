"""What repeats the recorded run in a year: exact versions."""

import json

from packaging.utils import canonicalize_name

from replication import paths, profiles

LINES = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINNED = dict(line.split("==") for line in LINES if not line.startswith("#"))  # none is an address
PINNED = {canonicalize_name(name): version for name, version in PINNED.items()}


def test_constraints_are_those_of_the_recorded_run():
    run = json.loads((paths.RECORDED / profiles.RECORDED / "run.json").read_text(encoding="utf-8"))
    for name in ("torch", "transformers", "bitsandbytes", "datasets"):
        assert PINNED[name] == run["environment"][name].partition("+")[0]
