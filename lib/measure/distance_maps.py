"""The angular distances of a profile's models: measured on C4, or from the results."""

import json
from collections.abc import Sequence

import numpy as np

from lib import paths, results
from lib.blocks import BlockDistances
from lib.data import sets
from lib.measure import fetching, wanted
from lib.models import files, loading
from lib.profiles import Profile
from lib.similarity import block_distances, calibration_batches, layerwise_distances


def measure_all(
    names: Sequence[str], profile: Profile
) -> tuple[dict[str, BlockDistances], Profile]:
    """The distances of each of `names` that can be had, and the profile without the others."""
    return fetching.measure_each(measure, names, profile)


def measure(name: str, profile: Profile) -> BlockDistances:
    """The distances of model `name` on C4, from the results if they are there."""
    (asked,) = fetching.here([wanted.similarity(name, profile)])

    def compute() -> dict:
        texts = sets.c4("validation", profile.source, profile.similarity_sequences)
        tokens = profile.similarity_tokens
        tokenizer = files.tokenizer(name)
        batches = calibration_batches(texts, tokenizer, tokens, profile.batch_tokens)
        if loading.fits(name, profile.batch_tokens, **profile.weights):
            found = block_distances(loading.loaded(name, **profile.weights)[0], batches)
        else:
            found = layerwise_distances(
                lambda: loading.one_layer_models(name, **profile.weights), batches
            )
        return {
            "matrix": found.matrix.tolist(),
            "standard_error": found.standard_error.tolist(),
            "folds": found.folds.tolist(),
            "num_sequences": found.num_sequences,
        }

    record = results.load_or_compute(asked.kind, asked.params, compute)
    return BlockDistances.stored(record["values"])


def recorded(name: str) -> tuple[BlockDistances, dict]:
    """A recorded map of data/recorded/, and how it was measured. Raises ValueError if absent."""
    file = paths.RECORDED / f"{name}.json"
    if not file.exists():
        known = ", ".join(sorted(p.stem for p in paths.RECORDED.glob("*.json")))
        raise ValueError(f"No recorded map {name!r}: choose one of {known}.")
    record = json.loads(file.read_text(encoding="utf-8"))
    arrays = [np.array(record.pop(key)) for key in ("matrix", "standard_error", "folds")]
    return BlockDistances(*arrays, record["sequences"]), record
