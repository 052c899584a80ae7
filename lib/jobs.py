"""The measurements of a run as jobs of one model, and where healing costs hours, of one depth.

A job is a notebook with fewer models and block sizes: what it measures, the same notebook over all
of them then finds in the results. Imports neither torch nor transformers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lib import registry
from lib.profiles import Profile

WAVES = (("01",), ("02",), ("03",), ("05", "06", "07"))  # maps, unhealed scores, healings, variants


@dataclass(frozen=True)
class Job:
    """One notebook for one model, at one number of dropped layers (None: at all it heals)."""

    notebook: str
    model: str
    size: int | None = None

    @property
    def wave(self) -> int:
        """A job builds on those of the same model and an earlier wave."""
        return next(i for i, notebooks in enumerate(WAVES) if self.notebook in notebooks)

    @property
    def parameters(self) -> dict:
        """What it changes of the notebook's parameters."""
        sizes = {} if self.size is None else {"SIZES": [self.size]}
        return {"MODELS": [self.model]} | sizes


def jobs(profile: Profile, notebooks: Sequence[str]) -> list[Job]:
    """The jobs of `notebooks` (numbers) in the order in which each finds what it builds on.

    A notebook that only draws what others measure has none.
    """
    found = []
    for number in notebooks:
        for model, sizes in _parts(profile, number):
            found += [Job(number, model, size) for size in sizes]
    return found


def by_model(found: Iterable[Job]) -> list[Job]:
    """The same work in fewer jobs: all depths of a model in one."""
    return list(dict.fromkeys(replace(job, size=None) for job in found))


def _parts(profile: Profile, number: str) -> list[tuple[str, list[int | None]]]:
    """The models that a notebook measures, each with the sizes that are jobs of their own."""
    once = [(model, [None]) for model in profile.models]
    healed, ablation = profile.healed_sizes, profile.ablation_sizes
    return {
        "01": once,
        "02": once,
        "03": [(model, _sizes(model, healed)) for model in profile.models],
        "05": [(model, _sizes(model, healed)) for model in profile.ablation_models],
        "06": [(model, _sizes(model, ablation)) for model in profile.ablation_models],
        "07": [(model, _sizes(model, ablation)) for model in profile.rank_models],
    }.get(number, [])


def _sizes(model: str, sizes_of) -> list[int | None]:
    num_layers = registry.num_layers(model)
    return [None] if num_layers is None else sizes_of(num_layers)
