"""What each kind of result is keyed by: everything that changes its numbers.

`identity` is that of the model (`models.identity`). Imports neither torch nor transformers, so
that results can be looked up before anything is loaded.
"""

from dataclasses import asdict

from lib import data, evaluation
from lib.profiles import Profile
from lib.recipes import Recipe
from lib.results import VERSIONS


def similarity(identity: dict, profile: Profile) -> dict:
    """Parameters of a model's angular distances."""
    measured = {
        "sequences": profile.similarity_sequences,
        "max_tokens": profile.similarity_tokens,
        "batch_tokens": profile.batch_tokens,
        "version": VERSIONS["similarity"],
    }
    return identity | data.identity("c4", profile.source) | measured


def score(identity: dict, profile: Profile, task: str, start: int, size: int) -> dict:
    """Parameters of the score of one block, not healed."""
    where = {"block_start": start, "block_size": size}
    how = {"batch_tokens": profile.batch_tokens, "version": VERSIONS["scores"]}
    return identity | evaluation.params(task, profile) | where | how


def healing(identity: dict, start: int, size: int, recipe: Recipe) -> dict:
    """Parameters of a healing; without identity, what a healed block's score is keyed by beside."""
    where = {"block_start": start, "block_size": size}
    told = {"recipe": asdict(recipe), "healing_version": VERSIONS["healing"]}
    return identity | where | told | data.healing_identity(recipe.source)
