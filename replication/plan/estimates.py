"""What the jobs of a run must still leave, and what that costs. Loads no model, writes nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from lib.blocks import Block, BlockDistances
from lib.healing.recipe import Recipe, memory_fallbacks
from lib.models import registry
from lib.models.shapes import Shape
from replication import paths, results
from replication.measure import request
from replication.measure.request import Request, grouped
from replication.measure.studies import all_blocks
from replication.plan import costs
from replication.plan.assumptions import Card
from replication.plan.costs import Cost
from replication.profiles import Profile
from replication.results.archive import Archive, parsed, stored
from replication.run.jobs import Job, jobs

MACHINE = ("revision", "quantization", "dtype", "device")  # of a result's model
MOST_READ = 20  # records that a rate is taken from


@dataclass(frozen=True)
class Estimate:
    """A job, whether its results are there, and the costs of those that it must still leave."""

    job: Job
    done: bool
    costs: list[Cost]
    obstacle: str = ""  # why it cannot be planned


class Guess:
    """Best starts of a model without a map: those published of it, else as in the mean of all."""

    def __init__(self, model: str, num_layers: int):
        told = json.loads((paths.DATA / "published.json").read_text(encoding="utf-8"))
        known = {n: s for n, s in told["best_starts"].items() if n in registry.MODELS}
        self.num_layers = num_layers
        self.starts = {model: known[model]} if model in known else known

    def best_start(self, size: int) -> int:
        """l*(n), n = size."""
        after = []  # shares of the layers that come after a cut of this share of the layers
        for name, starts in self.starts.items():
            layers = registry.MODELS[name].shape.num_layers
            cut = min(max(1, round(size / self.num_layers * layers)), len(starts))
            after.append(1 - (starts[cut - 1] + cut) / layers)
        return self.num_layers - size - round(self.num_layers * sum(after) / len(after))


def estimates(profile: Profile, notebooks: Sequence[str], card: Card) -> list[Estimate]:
    """Every job of `notebooks`; a result that several need is counted with the first one.

    Of the recorded profile, what is recorded is done: `make record` resumes from there.
    """
    found, counted = [], set()
    record = results.archive(paths.RECORDED / profile.name)
    known = {results.key(r["kind"], r["params"]) for r in record.records()}
    shapes = {model: registry.shape(model) for model in profile.models}
    maps = {model: _maps(model, profile, record) for model in profile.models}
    for job in jobs(profile, notebooks):
        shape = shapes[job.model]
        if shape is None:
            kind = registry.resolve(job.model).kind
            needs = "until the file is unpacked" if kind == "gguf" else "without the hub"
            found.append(Estimate(job, False, [], f"sizes unknown {needs}"))
            continue
        needed, missing = _missing(job, profile, shape, maps[job.model], known)
        if shape.experts > 1 and any(w.recipe for w in needed):
            found.append(Estimate(job, False, [], "its experts cannot be healed"))
            continue
        new = {results.key(w.kind, w.params): w for w in missing}
        new = {key: w for key, w in new.items() if key not in counted}
        counted |= new.keys()
        found.append(Estimate(job, not missing, _costs(shape, list(new.values()), card)))
    return found


# ---- what is there -------------------------------------------------------------------------


def _missing(
    job: Job, profile: Profile, shape: Shape, maps: list[dict], known: set[str]
) -> tuple[list[Request], list[Request]]:
    """All results of a job, and those of them that no machine that made a map has left.

    known: keys of results that count as left.
    """
    if not maps:
        needed = job.wanted(Guess(job.model, shape.num_layers), profile)
        return needed, needed
    versions = []
    for record in maps:
        machine = {key: record["params"][key] for key in MACHINE if key in record["params"]}
        every = job.wanted(BlockDistances.stored(record["values"]), profile)
        versions.append([replace(w, params=w.params | machine) for w in every])
    missing = [
        same[0] for same in zip(*versions, strict=True) if not any(_there(w, known) for w in same)
    ]
    return versions[0], missing


def _there(wanted: Request, known: set[str]) -> bool:
    """Whether a result is stored, or its healing failed, so that there is none to be had."""
    what = wanted.kind, wanted.params
    if results.key(*what) in known or results.location(*what).exists():
        return True
    healed = wanted.recipe and results.load("healing", request.healing.params)
    return bool(healed) and healed["values"]["status"] != "ok"


def _maps(model: str, profile: Profile, record: Archive | None = None) -> list[dict]:
    """The stored (or recorded) results of a model's distances; one for each kind of machine."""
    revision = {"revision": registry.resolve(model).revision}
    asked = request.similarity(model, profile).params | revision
    asked = {key: value for key, value in asked.items() if key != "dtype" or value}
    there = [*stored(paths.RESULTS, "similarity")]
    there += record.records("similarity") if record else []
    return [found for found in there if asked.items() <= found["params"].items()]


# ---- what is missing costs -----------------------------------------------------------------


def _costs(shape: Shape, missing: list[Request], card: Card) -> list[Cost]:
    """The costs of results in the order in which they are measured; weights stay loaded."""
    found, loaded = [], None
    healings = {results.key(w.kind, w.params): w for w in missing if w.kind == "healing"}
    for call, same in grouped(missing, _call).items():
        shorter = (results.key(w.kind, w.params) for w in same[0].shorter)
        shared = next((healings[key].recipe for key in shorter if key in healings), None)
        made = shared.steps - shared.decay_steps if shared else 0
        for cost in _of_call(shape, same, card, made):
            found.append(replace(cost, read=0) if found and call[0] == loaded else cost)
            loaded = call[0]
    return found


def _call(wanted: Request) -> tuple:
    """The same for results of one call; first, which layers it loads."""
    block = wanted.block if wanted.recipe else None
    if wanted.kind == "repair":
        return block, wanted.kind
    asked = {k: v for k, v in wanted.params.items() if k not in ("block_start", "block_size")}
    return block, results.key(wanted.kind, asked)


def _of_call(shape: Shape, call: list[Request], card: Card, made: int = 0) -> list[Cost]:
    """The costs of one call: of one result, or of scores of many blocks, not healed.

    made: steps of a healing that a shorter one has made.
    """
    first = call[0]
    params, how = first.params, (first.params["quantization"], card)
    if first.kind == "healing":
        cure = replace(first.recipe, steps=first.recipe.steps - made)
        return _healing(shape, first.block, cure, how)
    if first.kind in ("similarity", "states"):
        return [getattr(costs, first.kind)(shape, params, *how)]
    found, layers = [], shape.num_layers - (first.block.size if first.recipe else 0)
    if first.kind == "repair":
        blocks = dict.fromkeys(w.block for w in call)
        found = [costs.fitting(shape, block.stop, params, *how) for block in blocks]
    for same in grouped(call, lambda w: w.params.get("task")).values():
        asked = {"task": "c4"} | same[0].params
        found.append(costs.sweep(shape, layers, _after(shape, same), asked, *how))
    return found


def _after(shape: Shape, swept: list[Request]) -> list[int]:
    """How many layers each version of a sweep has after its cut."""
    layers = shape.num_layers
    if swept[0].kind == "damage":
        return [layers - block.stop for block in all_blocks(layers)]
    return [layers - w.block.stop for w in swept if w.block.size and not w.recipe]


def _healing(shape: Shape, block: Block, cure: Recipe, how: tuple) -> list[Cost]:
    """A healing in the way that fits and is quickest."""
    layers, (_, card) = shape.num_layers - block.size, how
    tried = [costs.healing(shape, layers, cure, *how, *way) for way in memory_fallbacks(cure.batch)]
    fitting = [cost for cost in tried if cost.memory <= card.memory] or tried[-1:]
    return [min(fitting, key=lambda cost: cost.seconds(card))]  # of equals, the fewest passes


# ---- the card as the profile uses it -------------------------------------------------------


def adjusted(card: Card, profile: Profile) -> Card:
    """The card with weights in the profile's format; a CPU at the rates of its stored results."""
    card = replace(card, element={None: card.element, "float32": 4}.get(profile.dtype, 2))
    forward, training = [], []
    for model in profile.models if card.on_cpu else ():
        shape = registry.shape(model)
        for record in _maps(model, profile) if shape else ():
            if record["params"]["device"] == "cpu":
                cost = costs.similarity(shape, record["params"], profile.quantization, card)
                forward.append(cost.flops / record["seconds"])
                training += _healing_rates(shape, profile, record["params"], card)
    if not forward:
        return card
    return replace(
        card,
        rate=median(forward),
        training_rate=median(training) if training else card.training_rate,
        source=f"measured here ({len(forward)} distance maps, {len(training)} healings)",
    )


def _healing_rates(shape: Shape, profile: Profile, of_map: dict, card: Card) -> list[float]:
    """FLOP/s of some healings that were made on the machine of a map."""
    same = {key: of_map[key] for key in ("model", *MACHINE) if key in of_map}
    files = results.location("healing", same).parent.glob("*.json")
    found = []
    for file in sorted(files, key=lambda file: file.stem[-8:])[:MOST_READ]:  # of all depths
        record, problem = parsed(file.read_bytes(), "healing")
        ours = not problem and same.items() <= record["params"].items()
        if not ours or record["status"] != "ok":  # an ended one tells no rate
            continue
        layers = shape.num_layers - record["params"]["block_size"]
        made = Recipe(**record["params"]["recipe"])
        cost = costs.healing(shape, layers, made, profile.quantization, card, 16)
        found.append(cost.flops / record["seconds"])
    return found
