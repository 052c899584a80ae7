"""A run as web pages that open offline: `python -m replication.report --profile quick`.

papermill_runs/index.html begins with what was asked, what was measured, what came out and where to
go next. Then come every figure, the run next to the recorded one, and versions. Each executed
notebook is a page of its own. What failed or is missing is shown so.
"""

import argparse
import os
import sys
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import nbformat
import pandas as pd

from replication import claims, notebook, paths, profiles, results
from replication.figures.curves import TASKS
from replication.profiles import Profile
from replication.report import compare, pages
from replication.results.archive import Archive
from replication.run.notebooks import FIGURES, NOTEBOOKS

COMPARED = ["model", "task", "treatment", "block_start", "block_size", "shots", "seed", "rank"]
COMPARED += ["value", "standard_error", "n", "recorded", "recorded_error", "recorded_n"]
COMPARED += ["difference", "units"]


def build(profile: Profile) -> Path:
    """Write papermill_runs/index.html and a page per executed notebook; return the index.

    Raises ValueError if the profile has left neither a notebook nor a figure.
    """
    notebooks = [_notebook(number, profile.name) for number in NOTEBOOKS]
    figures = [_figure(name, profile.name) for name in FIGURES]
    if not any(n["page"] for n in notebooks) and not any(f["picture"] for f in figures):
        raise ValueError(
            f"Nothing of profile {profile.name} is there to report: "
            f"run make figures PROFILE={profile.name} first."
        )
    here = results.archive(paths.RESULTS)
    recorded = results.archive(paths.RECORDED / profiles.RECORDED)
    stored = pd.DataFrame(found["environment"] for found in here.records())
    machine = {name: ", ".join(stored[name].dropna().unique()) for name in stored}
    sides = {"this run": machine, "recorded run": recorded.run.get("environment", {})}
    index = paths.RUNS / "index.html"
    index.parent.mkdir(parents=True, exist_ok=True)
    told = pages.page(
        title=f"The deeper layers: {profile.name}",
        profile=profile,
        made=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        notebooks=notebooks,
        figures=figures,
        interactive={f.name: _address(f) for f in (paths.FIGURES / profile.name).glob("*.html")},
        settings=notebook.settings(profile).data,
        measured=_measured(profile, here),
        machine=machine,
        claims=_claims(profile.name),
        compared=_compared(profile, here, recorded),
        versions=pages.table(pd.DataFrame(sides).rename_axis("").reset_index()),
    )
    index.write_text(told, encoding="utf-8")
    return index


def asked(name: str) -> Profile:
    """The profile `name` with the models, LIMIT, … of the newest run. Raises ValueError."""
    copies = (paths.RUNS / name / f"{notebook.file}.ipynb" for notebook in NOTEBOOKS.values())
    newest = max(filter(Path.exists, copies), key=os.path.getmtime, default=None)
    about = nbformat.read(newest, as_version=4).metadata if newest else {}
    told = about.get("papermill", {}).get("parameters", {})
    return profiles.get(name, *map(told.get, ("MODELS", "LIMIT", "STEPS", "SIZES", "DTYPE")))


def _notebook(number: str, profile: str) -> dict:
    """How a notebook went (done, failed or missing), and its page, written next to it."""
    name = NOTEBOOKS[number].file
    told = {"number": number, "name": name, "title": name, "state": "missing", "page": None}
    copies = {"done": f"{name}.ipynb", "failed": f"{name}.failed.ipynb"}
    copies = {state: paths.RUNS / profile / file for state, file in copies.items()}
    times = {state: file.stat().st_mtime for state, file in copies.items() if file.exists()}
    if not times:
        return told
    state = max(times, key=times.get)
    executed = nbformat.read(copies[state], as_version=4)
    seconds = executed.metadata.get("papermill", {}).get("duration")
    told |= {"state": state, "minutes": seconds and seconds / 60, "page": f"{profile}/{name}.html"}
    links = ("header", "footer")  # to files that no page lies next to
    executed.cells = [cell for cell in executed.cells if cell.get("id") not in links]
    titles = (c.source.splitlines()[0] for c in executed.cells if c.source.startswith("# "))
    told["title"] = next(titles, name).strip("# ")  # papermill puts an error above it
    errors = [o for c in executed.cells for o in c.get("outputs", []) if o.output_type == "error"]
    told["reason"] = f"{errors[-1].ename}: {errors[-1].evalue}".splitlines()[0] if errors else ""
    page = pages.page(title=told["title"], notebook=told, body=pages.notebook(executed))
    (paths.RUNS / told["page"]).write_text(page, encoding="utf-8")
    return told


def _figure(name: str, profile: str) -> dict:
    """A figure's pictures, its own and the recorded one, and its table."""
    (shows, numbers), folder = FIGURES[name], paths.FIGURES / profile
    recorded = paths.ROOT / "figures" / profiles.RECORDED / f"{name}.png"
    return {
        "name": name.replace("_", " "),
        "shows": shows.replace("`", ""),
        "notebooks": numbers,
        "picture": pages.picture(folder / f"{name}.png"),
        "recorded": pages.picture(recorded) if profile != profiles.RECORDED else None,
        "table": _address(folder / f"{name}.csv"),
    }


def _address(file: Path) -> str:
    """A file as the index refers to it."""
    return quote(os.path.relpath(file, paths.RUNS))


def _measured(profile: Profile, here: Archive) -> str:
    """A row per task: how many questions or texts, and how many versions of each model."""
    rows = []
    for found in compare.of_profile(profile, here):
        params, values = found["params"], found["values"]
        task = TASKS.get(params.get("task"), params.get("task", "angular distance"))
        n, task = values.get("n", values.get("num_sequences")), task.partition(" /")[0]
        rows.append((task.removesuffix(" accuracy"), params["model"], n, "recipe" in params))
    told = pd.DataFrame(rows, columns=["task", "model", "n", "healed"]).groupby(["task", "model"])
    told = told.agg({"n": "max", "healed": ["size", "sum"]})
    text = "n = {:,.0f}; versions: {}, healed: {}"
    cells = pd.Series([text.format(*cell) for cell in told.to_numpy()], told.index, dtype=object)
    return pages.table(cells.unstack().rename_axis(columns=None).reset_index())


def _claims(profile: str) -> dict | None:
    """The verdicts: how many of each model, a row of lights per claim, and every one in full."""
    file = paths.FIGURES / profile / "figure_claims.csv"
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
    found = compare.compare(profile, here, recorded)
    told = {"beyond": compare.BEYOND, "recorded": recorded.run}
    if found.empty or not told["recorded"]:
        return told | {"count": 0}
    compared, apart = found[found.settings == ""], found[found.settings != ""]
    shown = compared.reindex(columns=COMPARED)
    counts = apart.groupby(["task", "treatment", "settings"]).size()
    return told | {
        "count": len(compared),
        "differing": int(compared.differs.sum()),
        "differs": pages.table(shown[compared.differs]),
        "agrees": pages.table(shown[~compared.differs]),
        "apart": pages.table(counts.rename("measurements").reset_index()),
    }


def main(argv: list[str] | None = None) -> int:
    first = __doc__.split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m replication.report", description=first)
    parser.add_argument("--profile", default="quick", help="the run to report")
    options = parser.parse_args(argv)
    try:
        print(build(asked(options.profile)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
