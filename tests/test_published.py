"""What others read of the repository: its citation, its workflows, the head of its data."""

import re
import subprocess
import tomllib

import datasets
import pytest
import yaml

from replication import paths

WORKFLOWS = {file.stem: file for file in (paths.ROOT / ".github/workflows").glob("*.yml")}
RECORD = paths.RECORDED / "overnight"


def head_of_data() -> dict:
    return yaml.safe_load((paths.DATA / "README.md").read_text().split("---\n")[1])


def steps(name: str) -> list[str]:
    """The shell commands of a workflow, in order."""
    jobs = yaml.safe_load(WORKFLOWS[name].read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def test_a_citation_names_this_work_and_the_paper_as_a_reference():
    citation = yaml.safe_load((paths.ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    assert "preferred-citation" not in citation  # GitHub would show it in place of this work
    assert "replication" in citation["title"]
    assert "2403.17887" in citation["references"][0]["url"]
    assert citation["version"] == project["version"]
    assert f"`v{project['version']}`" in (paths.ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_command_of_a_workflow_is_one_of_the_makefile(name):
    """With variables that its target has; what is copied or published was made before."""
    made = ""
    for command in steps(name):
        if command.startswith("make "):
            dry = ["make", "-n", *command.split()[1:], "PYTHON=python3"]
            done = subprocess.run(dry, cwd=paths.ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            made += done.stdout
        else:
            assert re.fullmatch(r"cp \S+ \S+", command)
    assert made


def test_what_the_pages_hold_is_what_make_writes():
    """The site's folder and the explorer's file, by the help of their targets."""
    help_of = (paths.ROOT / "Makefile").read_text()
    *_, copy = steps("pages")
    _, explorer, site = copy.split()
    assert explorer in help_of and site.replace("recorded/", "<profile>/index.html") in help_of
    text = WORKFLOWS["pages"].read_text()
    assert f"path: {site.rstrip('/')}}}" in text


def test_a_hub_shows_each_table_of_the_record():
    of_table = {config["config_name"]: config["data_files"] for config in head_of_data()["configs"]}
    tables = {file.stem: f"recorded/overnight/{file.name}" for file in RECORD.glob("*.parquet")}
    assert of_table == tables


def test_a_table_of_the_record_is_read_by_its_name_as_a_hub_reads_it(tmp_path):
    """`load_dataset(folder, name)` reads the head of README.md; the viewer does the same."""
    (tmp_path / "data").mkdir()
    for name in ("README.md", "recorded"):
        (tmp_path / "data" / name).symlink_to(paths.DATA / name)
    rows = datasets.load_dataset(
        str(tmp_path / "data"), "option_ends", split="train", cache_dir=str(tmp_path / "cache")
    )
    assert rows.num_rows > 0 and "model" in rows.column_names
