"""The angular distances of a profile's models: measured on C4, or from the results."""

import json
from collections.abc import Sequence
from functools import partial

from lib.blocks import BlockDistances
from replication import paths
from replication.measure import fetching, request
from replication.profiles import Profile

ARRAYS = ("matrix", "standard_error", "folds")  # of a stored map


def measure(
    profile: Profile, names: Sequence[str] | None = None
) -> tuple[dict[str, BlockDistances], Profile]:
    """The distances of each model that can be had, and the profile without the others.

    names: of the models, by default all of the profile's. Raises ModelError (or NotMeasured) if
    none can be had.
    """
    return fetching.measure_each(of_model, profile.models if names is None else names, profile)


def of_model(name: str, profile: Profile) -> BlockDistances:
    """The distances of model `name` on C4, from the results if they are there."""

    def compute(params: dict) -> dict:
        from lib.data import sets  # here, since what only reads results loads no torch
        from lib.models import files, loading
        from lib.similarity import block_distances, calibration_batches, layerwise_distances

        texts = sets.c4("validation", profile.source, params["sequences"])
        lengths = params["max_tokens"], params["batch_tokens"]
        batches = calibration_batches(texts, files.tokenizer(name), *lengths)
        if loading.fits(name, profile.batch_tokens, **profile.load_kwargs):
            model, _ = loading.load_cached(name, **profile.load_kwargs)
            distances = block_distances(model, batches)
        else:
            layers = partial(loading.one_layer_models, name, **profile.load_kwargs)
            distances = layerwise_distances(layers, batches)
        arrays = {key: getattr(distances, key).tolist() for key in ARRAYS}
        return arrays | {"num_sequences": distances.num_sequences}

    (record,) = fetching.computed([request.similarity(name, profile)], compute)
    return BlockDistances.stored(record["values"])


def recorded(name: str) -> tuple[BlockDistances, dict]:
    """A recorded map of data/recorded/, and how it was measured. Raises ValueError if absent."""
    file = paths.RECORDED / f"{name}.json"
    if not file.exists():
        known = ", ".join(sorted(p.stem for p in paths.RECORDED.glob("*.json")))
        raise ValueError(f"No recorded map {name!r}: choose one of {known}.")
    record = json.loads(file.read_text(encoding="utf-8"))
    arrays = {key: record.pop(key) for key in ARRAYS}
    return BlockDistances.stored(arrays | {"num_sequences": record["sequences"]}), record
