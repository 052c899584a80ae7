"""A run as web pages that open offline: `python -m replication.report --profile quick`.

papermill_runs/report/<profile>/ is whole: it can be opened from a disk or put on any static host.
Its index.html begins with pictures: what was found (of the recorded run), then every figure. Then
come the notebooks, each a page of its own, the verdicts, the run next to the recorded one, and
versions. What failed or is missing is shown so.
"""

import argparse
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd

from lib import storage
from replication import claims, notebook, paths, profiles, results
from replication.figures.curves import TASKS
from replication.profiles import Profile
from replication.report import compare, pages
from replication.results.archive import Archive
from replication.run.notebooks import FIGURES, NOTEBOOKS

FINDINGS = Path(__file__).with_name("findings.csv")  # sentences of README.md, and their figures
COMPARED = ["model", "task", "treatment", "block_start", "block_size", "shots", "seed", "rank"]
COMPARED += ["value", "standard_error", "n", "recorded", "recorded_error", "recorded_n"]
COMPARED += ["difference", "units"]


def build(profile: Profile) -> Path:
    """Write the folder of the report anew: a page per executed notebook, an index; return that.

    Raises ValueError if the profile has left neither a notebook nor a figure. After an error the
    report that was there stays.
    """
    folder = paths.RUNS / "report" / profile.folder
    with storage.atomic_folder(folder) as part:
        part.mkdir(parents=True)
        _write(profile, part)
        shutil.rmtree(folder, ignore_errors=True)
    return folder / "index.html"


def _write(profile: Profile, report: Path) -> None:
    """Write the pages of a report into the folder `report`."""
    drawn = paths.FIGURES / profile.folder
    interactive = {file.name: _copied(file, report) for file in sorted(drawn.glob("*.html"))}
    notebooks = [_notebook(number, profile, report) for number in NOTEBOOKS]
    figures = [_figure(name, profile, report) for name in FIGURES]
    if not any(n["page"] for n in notebooks) and not any(f["picture"] for f in figures):
        raise ValueError(
            f"Nothing of profile {profile.name} is there to report: "
            f"run make figures PROFILE={profile.name} first."
        )
    recorded = results.archive(paths.RECORDED / profiles.RECORDED)
    is_record = profile.name == profiles.DRAWN
    here = recorded if is_record else results.archive(paths.RESULTS)
    stored = pd.DataFrame(record["environment"] for record in here.records())
    machine = {name: ", ".join(stored[name].dropna().unique()) for name in stored}
    sides = {} if is_record else {"this run": machine}
    sides["recorded run"] = recorded.run.get("environment", {})
    page = pages.page(
        title=f"The deeper layers: {profile.name}",
        whose="the recorded run" if is_record else "this run",
        profile=profile,
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        notebooks=notebooks,
        figures=figures,
        findings=_findings(figures) if is_record else [],
        interactive=interactive,
        settings=notebook.settings(profile).data,
        measured=_measured(profile, here),
        machine=machine,
        claims=_claims(profile),
        compared=None if is_record else _compared(profile, here, recorded),
        versions=pages.table(pd.DataFrame(sides).rename_axis("").reset_index()),
    )
    (report / "index.html").write_text(page, encoding="utf-8")


def newest_run(name: str) -> Profile:
    """The profile `name` with the models, LIMIT, … of the newest run. Raises ValueError."""
    folders = [paths.RUNS / name, *paths.RUNS.glob(f"{name}-*")]  # those of other models
    copies = [copy for folder in folders for n in NOTEBOOKS for copy in _copies(n, folder).values()]
    newest = max(copies, key=os.path.getmtime, default=None)
    metadata = nbformat.read(newest, as_version=4).metadata if newest else {}
    parameters = metadata.get("papermill", {}).get("parameters", {})
    limits = map(parameters.get, ("MODELS", "LIMIT", "STEPS", "SIZES", "DTYPE"))
    return profiles.get(name, *limits)


def _copies(number: str, folder: Path) -> dict[str, Path]:
    """The executed copies of a notebook in the folder of a run: "done", "failed"."""
    name = NOTEBOOKS[number].file
    copies = {"done": folder / f"{name}.ipynb", "failed": folder / f"{name}.failed.ipynb"}
    return {state: copy for state, copy in copies.items() if copy.exists()}


def _notebook(number: str, profile: Profile, report: Path) -> dict:
    """How a notebook went (done, failed or missing), and its page, written into the report."""
    name = NOTEBOOKS[number].file
    copies = _copies(number, paths.RUNS / profile.folder)
    if not copies:
        return {"number": number, "name": name, "title": name, "state": "missing", "page": None}
    state = max(copies, key=lambda state: copies[state].stat().st_mtime)
    executed = nbformat.read(copies[state], as_version=4)
    links = ("header", "footer")  # to files that no page lies next to
    executed.cells = [cell for cell in executed.cells if cell.get("id") not in links]
    seconds = executed.metadata.get("papermill", {}).get("duration")
    entry = {
        "number": number,
        "name": name,
        "title": _title(executed) or name,
        "state": state,
        "minutes": seconds and seconds / 60,
        "page": f"{name}.html",
        "reason": _error(executed),
    }
    explorer = report / "explorer.html"
    body = pages.notebook(executed, explorer.name if explorer.exists() else None)
    page = pages.page(title=entry["title"], notebook=entry, body=body)
    (report / entry["page"]).write_text(page, encoding="utf-8")
    return entry


def _title(executed: nbformat.NotebookNode) -> str:
    """The first headline of a notebook; papermill may have put an error above it."""
    headlines = (c.source.splitlines()[0] for c in executed.cells if c.source.startswith("# "))
    return next(headlines, "").strip("# ")


def _error(executed: nbformat.NotebookNode) -> str:
    """The last error of a notebook in one line; "" if it has none."""
    errors = []
    for cell in executed.cells:
        errors += [out for out in cell.get("outputs", []) if out.output_type == "error"]
    return f"{errors[-1].ename}: {errors[-1].evalue}".splitlines()[0] if errors else ""


def _figure(name: str, profile: Profile, report: Path) -> dict:
    """A figure's pictures, its own and the recorded one, and its table."""
    (shows, numbers), folder = FIGURES[name], paths.FIGURES / profile.folder
    recorded = paths.ROOT / "figures" / profiles.RECORDED / f"{name}.png"
    is_record = profile.name in (profiles.RECORDED, profiles.DRAWN)
    table = folder / f"{name}.csv"
    return {
        "key": name,
        "name": name.replace("_", " "),
        "shows": shows.replace("`", ""),
        "notebooks": numbers,
        "picture": pages.picture(folder / f"{name}.png"),
        "recorded": None if is_record else pages.picture(recorded),
        "table": _copied(table, report) if table.exists() else None,
    }


def _findings(figures: list[dict]) -> list[dict]:
    """The figures that show a finding, each with its sentence."""
    sentences = {row["figure"]: row["finding"] for row in storage.rows(FINDINGS)}
    by_key = {figure["key"]: figure for figure in figures}
    figures = [by_key[key] | {"finding": sentence} for key, sentence in sentences.items()]
    return [figure for figure in figures if figure["picture"]]


def _copied(file: Path, report: Path) -> str:
    """A file of figures/<profile>/, copied into the report; its address there."""
    shutil.copyfile(file, report / file.name)
    return quote(file.name)


def _measured(profile: Profile, here: Archive) -> str:
    """A row per task: how many questions or texts, and how many versions of each model."""
    rows = []
    for record in compare.of_profile(profile, here):
        params, values = record["params"], record["values"]
        label = TASKS.get(params.get("task"), params.get("task", "angular distance"))
        task = label.partition(" /")[0].removesuffix(" accuracy")
        n = values.get("n", values.get("num_sequences"))
        rows.append((task, params["model"], n, "recipe" in params))
    table = pd.DataFrame(rows, columns=["task", "model", "n", "healed"])
    counts = table.groupby(["task", "model"]).agg({"n": "max", "healed": ["size", "sum"]})
    text = "n = {:,.0f}; versions: {}, healed: {}"
    cells = pd.Series([text.format(*row) for row in counts.to_numpy()], counts.index, dtype=object)
    return pages.table(cells.unstack().rename_axis(columns=None).reset_index())


def _claims(profile: Profile) -> dict | None:
    """The verdicts: how many of each model, a row of lights per claim, and every one in full."""
    file = paths.FIGURES / profile.folder / "figure_claims.csv"
    if not file.exists():
        return None
    judged = pd.read_csv(file, dtype={"claim": str}).dropna(subset="claim")  # a model not had
    full = judged[list(dict.fromkeys(["claim", "statement", "verdict", *judged]))]  # for phones
    return {
        "counts": pd.crosstab(judged.model, judged.verdict).to_dict("index"),
        "lights": pages.table(claims.light_table(judged).reset_index()),
        "full": pages.table(full),
    }


def _compared(profile: Profile, here: Archive, recorded: Archive) -> dict:
    """The run next to the recorded one: what differs, what agrees, what was set otherwise."""
    table = compare.compare(profile, here, recorded)
    if table.empty or not recorded.run:
        return {"beyond": compare.BEYOND, "recorded": recorded.run, "count": 0}
    compared, unlike = table[table.settings == ""], table[table.settings != ""]
    columns = compared.reindex(columns=COMPARED)
    counts = unlike.groupby(["task", "treatment", "settings"]).size()
    return {
        "beyond": compare.BEYOND,
        "recorded": recorded.run,
        "count": len(compared),
        "differing": int(compared.differs.sum()),
        "differs": pages.table(columns[compared.differs]),
        "agrees": pages.table(columns[~compared.differs]),
        "apart": pages.table(counts.rename("measurements").reset_index()),
    }


def main(argv: list[str] | None = None) -> int:
    first = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m replication.report", description=first)
    parser.add_argument("--profile", default="quick", help="the run to report")
    options = parser.parse_args(argv)
    try:
        print(build(newest_run(options.profile)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
