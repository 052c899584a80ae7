"""Tables at the waist: measuring ends in them, and everything else begins with them.

A run leaves one parquet file for each experiment, with a row a score (or a block, or a healing).
`pandas.read_parquet` reads one without this code. Lists stand in cells: `examples` (a value a
question or text), their `weights`, `choices` (log-likelihoods in nats), `answers`, `losses`,
`folds`. `request` holds, as JSON, the kind and the parameters of the result, and `environment`
what measured it. The recorded run's tables are committed in data/recorded/overnight/.
"""

import io
import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from lib import storage
from lib.blocks import BlockDistances
from replication import paths
from replication.profiles import DRAW_ONLY_PROFILE, PROFILES, RECORD_PROFILE, Profile

BLOCK = ("block_start", "block_size")
LOSSES = ("c4", "gsm8k_bpb")  # tasks where less is better
FEWEST = 30  # questions: no accuracy on fewer is drawn or judged
FEWEST_TEXTS = 20  # of a loss: no verdict rests on fewer
SETTINGS = ("kind", "shots", "shot_order", "patched", "max_tokens", "data", "data_revision")
SETTINGS += ("cut_at_random",)  # of a map
SETTINGS += ("rank", "steps", "seed")  # of a healing
RECORD_PREFIX = "recorded: "  # before the name of a model whose rows are the recorded run's
PARQUET = {"compression": "zstd", "write_page_checksum": True}
PARQUET |= {"write_statistics": False, "store_schema": False}  # which are longer than a result


class NotMeasured(RuntimeError):
    """A table or a result is not there, and this run only draws."""

    status = "not measured"


def folder(profile: Profile) -> Path:
    """Return where the tables of a profile's run are."""
    if profile.name == DRAW_ONLY_PROFILE:
        return paths.RECORDED / RECORD_PROFILE
    return paths.TABLES / profile.folder


def file(name: str, profile: Profile) -> Path:
    """Return the file of one experiment's table."""
    return folder(profile) / f"{name}.parquet"


def write(table: pd.DataFrame, name: str, profile: Profile) -> None:
    """Write the table of an experiment, whole or not at all."""
    write_file(table, file(name, profile))


def write_file(table: pd.DataFrame, place: Path) -> None:
    """Write a table into a file, whole or not at all."""
    content = io.BytesIO()
    table.to_parquet(content, index=False, **PARQUET)
    storage.atomic_write(place, content.getvalue())


def read(name: str, profile: Profile, models: Iterable[str] | None = None) -> pd.DataFrame:
    """Return the table of an experiment, of all models or of some.

    Lists of numbers are arrays, and choices a list of arrays, one a question. Raises NotMeasured if
    the table is not there.
    """
    place = file(name, profile)
    if not place.exists():
        raise NotMeasured(f"Nothing of {name!r} is measured: {place} is not there.")
    table = read_file(place)
    if models is not None:
        table = table[table.model.isin(list(models))].reset_index(drop=True)
    return table


def read_file(place: Path | io.BytesIO) -> pd.DataFrame:
    """Return the table of a file, whatever its run; ValueError or OSError if it is damaged."""
    table = pd.read_parquet(place, page_checksum_verification=True)
    if "choices" in table:
        table["choices"] = [None if of is None else list(of) for of in table.choices]
    return table


def with_settings(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with columns of SETTINGS, what its rows were asked, as `request` has them."""
    requests = table.request.map(json.loads)
    params = [request.get("recipe", {}) | request for request in requests]
    return table.assign(**{name: [of.get(name) for of in params] for name in SETTINGS})


def to_draw(table: pd.DataFrame, profile: Profile, *experiments: str) -> pd.DataFrame:
    """Return what a figure draws of a run's table: the recorded run behind it, if that is another.

    experiments: whose recorded rows are added. Their models are called "recorded: …". An accuracy
    on fewer than FEWEST questions has no value; its status says why.
    """
    return with_record(without_few(table), profile, *experiments)


def with_record(table: pd.DataFrame, profile: Profile, *experiments: str) -> pd.DataFrame:
    """Return a run's table with the recorded rows of experiments; as `to_draw`, of any values."""
    if profile.name == DRAW_ONLY_PROFILE or profile.folder == RECORD_PROFILE:
        return table
    drawn = replace(profile, name=DRAW_ONLY_PROFILE)
    behind = pd.concat([read(name, drawn) for name in experiments], ignore_index=True)
    behind = behind[behind.value.notna()]
    return pd.concat([table, behind.assign(model=RECORD_PREFIX + behind.model)], ignore_index=True)


def or_recorded(table: pd.DataFrame, profile: Profile, experiment: str) -> pd.DataFrame:
    """Return a run's table, or the recorded one if the run has measured no cut."""
    both = to_draw(table, profile, experiment)
    recorded = both.model.str.startswith(RECORD_PREFIX)
    own = both[~recorded]
    is_measured = (own.block_size > 0) & own.value.notna()
    return own if is_measured.any() or not recorded.any() else both[recorded]


def without_few(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores in which no accuracy on fewer than FEWEST questions has a value."""
    is_accuracy = ~scores.task.isin(LOSSES) & scores.value.notna()
    few = is_accuracy & (scores.n < FEWEST)
    notes = scores.n.map("no answer: {:.0f} questions are too few".format)
    return scores.assign(
        value=scores.value.mask(few),
        standard_error=scores.standard_error.mask(few),
        status=scores.status.mask(few, notes),
    )


def read_all(place: Path) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each experiment of which a folder has a table, and the table."""
    for file in sorted(place.glob("*.parquet")):
        yield file.stem, read_file(file)


def grouped(items: Iterable, key: Callable[..., Hashable]) -> dict:
    """The items by their key, each group and all of them in order."""
    groups = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


# ---- distance maps ----------------------------------------------------------------------------


def rows_of(distances: BlockDistances) -> list[dict]:
    """Return a row for each block: its distance, standard error, folds, and n (sequences)."""
    starts, stops = np.triu_indices(distances.num_layers + 1, k=1)
    return [
        {
            "block_start": start,
            "block_size": stop - start,
            "value": distances.matrix[start, stop],
            "standard_error": distances.standard_error[start, stop],
            "n": distances.num_sequences,
            "folds": distances.folds[:, start, stop],
        }
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]


def distances_of(rows: pd.DataFrame | list[dict]) -> BlockDistances:
    """Return the distances of one model from its rows in the table `similarity`."""
    table = pd.DataFrame(rows)
    starts = table.block_start.to_numpy()
    stops = starts + table.block_size.to_numpy()

    def square(column: pd.Series) -> np.ndarray:
        values = np.stack(column)
        matrix = np.zeros((stops.max() + 1, stops.max() + 1, *values.shape[1:]))
        matrix[starts, stops] = values
        matrix[stops, starts] = values
        return matrix

    return BlockDistances(
        matrix=square(table.value),
        standard_error=square(table.standard_error),
        folds=np.moveaxis(square(table.folds), -1, 0),
        num_sequences=int(table.n.iloc[0]),
    )


def with_recorded_maps(
    own: dict[str, BlockDistances], profile: Profile, of_same: bool = False
) -> dict[str, BlockDistances]:
    """Return a run's distances with those of the recorded models that it does not have, called as
    in `to_draw`; of_same: also with those that it has."""
    if profile.name == DRAW_ONLY_PROFILE or profile.folder == RECORD_PROFILE:
        return own
    recorded = maps(PROFILES[DRAW_ONLY_PROFILE])
    wanted = {name: of for name, of in recorded.items() if of_same or name not in own}
    return own | {RECORD_PREFIX + name: distances for name, distances in wanted.items()}


def maps(profile: Profile) -> dict[str, BlockDistances]:
    """Return the distances of a run's models, by name; of those of the profile that it has."""
    table = read("similarity", profile, profile.models)
    of_model = dict(list(table.groupby("model", sort=False)))
    return {name: distances_of(of_model[name]) for name in profile.models if name in of_model}
