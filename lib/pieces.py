"""The results that each job must leave, and which of them are there already.

Imports neither torch nor transformers, so that a run can be planned at once.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib import evaluation, keys, registry, results
from lib.jobs import Job
from lib.profiles import Profile
from lib.recipes import Recipe, recipe

TASKS = ["mmlu", "boolq", "arc_easy", "c4"]
STRATEGIES = ("similarity", "simple")
MOST_READ = 20  # records that a rate is taken from


@dataclass(frozen=True)
class Piece:
    """One result that a job must leave: of kind "similarity", "healing" or "scores"."""

    kind: str
    profile: Profile
    task: str | None = None
    strategy: str | None = None  # None: the unpruned model
    size: int = 0
    recipe: Recipe | None = None  # of a healed model

    @property
    def asked(self) -> dict:
        """What the result's key says of the data."""
        if self.kind == "scores":
            how = {"batch_tokens": self.profile.batch_tokens}
            return evaluation.params(self.task, self.profile) | how
        return keys.similarity({}, self.profile)


# ---- what each notebook measures -----------------------------------------------------------


def pieces(job: Job, profile: Profile, num_layers: int) -> list[Piece]:
    """The results of a job, in the order in which they are measured."""
    own = recipe(job.model, profile)
    depths = [job.size] if job.size else []
    found = [Piece("similarity", profile)]
    if job.notebook in ("02", "03"):
        found += _unhealed(profile, profile.block_sizes(num_layers), TASKS)
    if job.notebook == "03":
        found += _healed(profile, TASKS, STRATEGIES, depths, [own])
    if job.notebook == "05":
        prompts = [profile.with_prompt(shots) for shots in (0, 1, 3, 5)]
        for prompt in [*prompts, profile.with_prompt(5, order=1), profile.with_prompt(5, order=2)]:
            found += _unhealed(prompt, [], ["mmlu", "arc_easy"])
            found += _healed(prompt, ["mmlu", "arc_easy"], STRATEGIES[:1], depths, [own])
    if job.notebook in ("06", "07"):
        tasks = ["mmlu", "arc_easy", "c4"]
        changes = [{"seed": seed} for seed in (0, 1, 2)]
        changes = changes if job.notebook == "06" else [{"rank": r} for r in profile.ablation_ranks]
        found += _unhealed(profile, [], tasks)
        cures = [recipe(job.model, profile, **change) for change in changes]
        strategies = STRATEGIES[:1] if job.notebook == "06" else STRATEGIES
        found += _healed(profile, tasks, strategies, depths, cures)
    return found


def _unhealed(profile: Profile, sizes: Sequence[int], tasks: list[str]) -> list[Piece]:
    blocks = [(None, 0), *((strategy, size) for strategy in STRATEGIES for size in sizes)]
    return [Piece("scores", profile, task, *block) for task in tasks for block in blocks]


def _healed(profile: Profile, tasks, strategies, sizes, recipes) -> list[Piece]:
    found = []
    for strategy in strategies:
        for size in sizes:
            for cure in recipes:
                found.append(Piece("healing", profile, None, strategy, size, cure))
                found += [Piece("scores", profile, t, strategy, size, cure) for t in tasks]
    return found


# ---- what is there already -----------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """Which results of a model are there, under the identity that one of its maps was made with."""

    identity: dict
    matrix: list[list[float]]
    seconds: float  # that the map took

    def start(self, strategy: str | None, size: int) -> int:
        """Where the block of a strategy starts."""
        num_layers = len(self.matrix) - 1
        if strategy == "simple":
            return num_layers - 1 - size
        if strategy is None:
            return 0
        return min(range(num_layers - size + 1), key=lambda l: self.matrix[l][l + size])

    def has(self, piece: Piece) -> bool:
        """Whether the results hold `piece`, or say that its healing failed."""
        if piece.kind == "similarity":
            return True
        start, cure = self.start(piece.strategy, piece.size), {}
        if piece.recipe:
            cure = keys.healing({}, start, piece.size, piece.recipe)
            healed = results.location("healing", self.identity | cure)
            if piece.kind == "healing" or not healed.exists():
                return healed.exists()
        params = keys.score(self.identity, piece.profile, piece.task, start, piece.size)
        if results.location("scores", params | cure).exists():
            return True
        return bool(cure) and _read(healed).get("values", {}).get("status") != "ok"


def stored(model: str, profile: Profile) -> list[Stored]:
    """The distance maps of `model` as `profile` measures them; one for each kind of machine."""
    wanted = {"model": model, "revision": registry.resolve(model).revision}
    wanted |= {"quantization": profile.quantization} | keys.similarity({}, profile)
    found = []
    for file in sorted(results.location("similarity", wanted).parent.glob("*.json")):
        record = _read(file)
        params = record.get("params", {})
        if all(params.get(key) == value for key, value in wanted.items()):
            identity = {key: params[key] for key in params.keys() - keys.similarity({}, profile)}
            found.append(Stored(identity, record["values"]["matrix"], record["seconds"]))
    return found


def healings(known: Stored) -> list[tuple[int, Recipe, float]]:
    """Layers dropped, recipe and seconds of some healings made on the machine of `known`."""
    files = results.location("healing", known.identity).parent.glob("*.json")
    sample = sorted(files, key=lambda file: file.stem[-8:])[:MOST_READ]  # by key: of all depths
    records = [_read(file) for file in sample]
    mine = [r for r in records if known.identity.items() <= r.get("params", {}).items()]
    return [
        (r["params"]["block_size"], Recipe(**r["params"]["recipe"]), r["seconds"]) for r in mine
    ]


def _read(file: Path) -> dict:
    """A stored record, or nothing where it is damaged: whoever needs it measures it again."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return {}
