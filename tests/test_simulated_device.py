"""What a GPU would refuse: the whole path on a device simulated on the CPU, next to the CPU.

The tests are those of simulated_device/whole_path.py. They run once, in a process of their own, as
PyTorch cannot forget a device; each is shown here under its own name.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import simulated_device

from replication import paths

FILE = Path(simulated_device.HERE) / "whole_path.py"
NAMES = re.findall(r"^def (test_\w+)", FILE.read_text(encoding="utf-8"), re.MULTILINE)

pytestmark = pytest.mark.skipif(bool(simulated_device.missing()), reason=simulated_device.missing())


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """What went wrong in each test of the file that is asked for, by its name, "" if nothing."""
    items = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["name"] for item in items]
    report = tmp_path_factory.mktemp("simulated_device") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [f"{FILE}::{name}" for name in names] + [f"--junitxml={report}"]
    environment = os.environ | {"PYTHONPATH": f"{paths.ROOT}{os.pathsep}{paths.ROOT / 'tests'}"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.get("name").split("[")[0]
        problems = [part.text for part in case if part.tag in ("failure", "error")]
        outcomes[name] = outcomes.get(name, "") + "\n".join(problems)
    return outcomes


@pytest.mark.parametrize("name", NAMES)
def test_on_the_device(outcomes, name):
    assert name in outcomes, "it did not run"
    assert not outcomes[name], outcomes[name]
