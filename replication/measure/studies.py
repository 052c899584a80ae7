"""What notebooks 11 and 12 measure beyond the paper, as the results that they want.

As `experiments`; imports neither torch nor transformers.
"""

from collections.abc import Sequence

from lib.blocks import STRATEGIES, Block, blocks_of
from lib.data import sets
from lib.models import registry
from replication import profiles
from replication.measure import experiments
from replication.measure.wanted import Wanted, mapped, score
from replication.profiles import Profile

VERSIONS = {"damage": 1, "states": 2}  # bumped by hand when numbers do
CHUNK = 8  # texts of one result: what a killed run has to repeat
KINDS = ("full", "folded")  # of linear maps, as healing.linear has them
TASKS = ("c4", "arc_easy")  # that repairs are judged by


# ---- notebook 11 ---------------------------------------------------------------------------


def all_blocks(num_layers: int) -> list[Block]:
    """Every block of a model that leaves at least one layer, small ones first."""
    sizes = range(1, num_layers)
    return [Block(start, size) for size in sizes for start in range(num_layers - size + 1)]


def damage(name: str, distances, profile: Profile) -> list[Wanted]:
    """The loss without every block, by chunks of texts."""
    params = {"model": name, **profile.weights, **sets.identity("c4", profile.source)}
    params |= {"max_tokens": profile.damage_tokens, "batch_tokens": profile.batch_tokens}
    params |= {"version": VERSIONS["damage"]}
    count, requests = profile.damage_sequences, []
    for first in range(0, count, CHUNK):
        chunk = {"first": first, "sequences": min(CHUNK, count - first)}
        requests.append(Wanted("damage", params | chunk))
    return requests


def states(name: str, distances, profile: Profile) -> list[Wanted]:
    """What the states of the damage map's texts say of every block."""
    params = {"model": name, **profile.weights, **sets.identity("c4", profile.source)}
    params |= {"texts": "c4", "sequences": profile.damage_sequences}
    params |= {"max_tokens": profile.damage_tokens, "version": VERSIONS["states"]}
    return [Wanted("states", params)]


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
    after the cut only (if layers are there). The models of notebook 07 are asked ARC-Easy's test
    split as well.
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
