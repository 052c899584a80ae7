"""The plan: what is counted against what runs, what is there, and the hours of the profiles."""

from dataclasses import replace

import pytest
from conftest import EXPERTS, architectures, tiny
from torch.utils.flop_counter import FlopCounterMode

from lib import counting
from lib.blocks import Block
from lib.healing import lora
from lib.models import files, kernels, layers, machine
from replication import plan, profiles
from replication.measure import cache, distance_maps, experiments, fetching, request, scores
from replication.run.notebooks import NOTEBOOKS

SMOKE, PAPER = profiles.get("smoke"), profiles.get("paper")
CARD = plan.get_card("a100-80")


# ---- what a layer takes ----------------------------------------------------------------------


@pytest.mark.parametrize("architecture", architectures())
def test_every_architecture_is_counted(architecture):
    model = tiny(architecture)
    counted = counting.counted(model.config)
    parameters = counted.parameters
    assert parameters.size() == sum(p.numel() for p in model.parameters())
    config = layers.pruned_config(model.config, range(2, len(parameters.layers)))
    left = layers.meta_model(config).num_parameters()
    assert parameters.outside + sum(parameters.layers[2:]) == left
    assert counted.forward[0] > 0
    assert (counted.adapter > 0) == (architecture not in EXPERTS)


def test_a_run_takes_the_flops_that_were_planned(output, small, monkeypatch):
    """Sweeps and a healing on C4, whose texts are longer than is read of them.

    PyTorch 2.13 does not count attention on a CPU, so it is planned for next to no tokens; 2.15
    does, 8 % here.
    """
    monkeypatch.setattr(counting, "TOKENS", 2)
    profile = replace(SMOKE, models=(small,), heal_packed=True)
    distances = distance_maps.of_model(small, profile)
    swept = experiments.unhealed(small, distances, profile, ["c4"])
    recipe = profiles.recipe(small, profile, rank=1)
    heals = request.healing(small, profile, Block(1, 2), recipe)
    requests = {plan.key_of(one): one for one in [*swept, heals]}
    model = plan.Loaded(counting.counted(files.configuration(small)), None, CARD)
    flops = [work.flops for work in plan.works(model, requests.values())]
    *scored, healed = flops
    with FlopCounterMode(display=False) as sweeping:
        scores.table(swept)
    assert sum(scored) == pytest.approx(sweeping.get_total_flops(), rel=0.09)
    with FlopCounterMode(display=False) as healing:
        fetching.fetch([heals])
    assert healed == pytest.approx(healing.get_total_flops(), rel=0.1)


# ---- hours and memory ------------------------------------------------------------------------


def test_the_rates_reproduce_a_published_speed(monkeypatch):
    """FMS, LoRA of Mistral-7B in 16 bits on one A100-80, 4 sequences of 4,096, recomputed: 3,597.6
    tokens a second (foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv,
    row 12). Its norms are not fused, and its adapters are peft's."""
    monkeypatch.setattr(kernels, "fuse_norms", lambda model: None)
    monkeypatch.setattr(lora, "_adapted_layers", lambda wrapped: [])
    recipe = profiles.recipe("mistral-7b", PAPER, steps=1, batch=4, max_tokens=4096, packed=True)
    counted = counting.counted(files.configuration("mistral-7b"))
    model = plan.Loaded(counted, None, CARD)
    work = model.healing(32, recipe, micro=(4, True))
    speed = work.tokens / CARD.seconds(work)
    assert speed == pytest.approx(3597.6, rel=0.15)


@pytest.mark.parametrize("name, most", [("a100", 9), ("paper", 1150)])
def test_a_profile_takes_its_hours_and_fits(output, name, most):
    """Every result is counted, once. With documents in the order of their length, `paper` would
    take 1,186 hours: rows of long ones only would be recomputed."""
    jobs = plan.planned(profiles.get(name), list(NOTEBOOKS), CARD)
    works = [work for job in jobs for work in job.works]
    hours = sum(map(CARD.seconds, works)) / 3600
    assert most / 2 < hours <= most
    for work in works:
        assert work.flops > 0
        assert work.memory <= CARD.memory * 1e9
    keys = [plan.key_of(one) for job in jobs for one in job.missing]
    assert len(keys) == len(works)
    assert len(set(keys)) == len(keys)


def test_cards_of_one_kind_unpack_the_same_models():
    """However much memory their driver keeps: Qwen-14B takes a third of 79.2 GiB."""
    reported = [79.1 * 2**30, 79.3 * 2**30, CARD.memory * 1e9]
    assert {machine.nominal(memory) for memory in reported} == {80 * 2**30}


def test_a_cpu_has_room_for_all_that_is_planned():
    """Its card has no end of memory: nothing stays packed, nothing is recomputed."""
    counts = counting.counted(files.configuration("smollm2-135m"))
    model, recipe = plan.Loaded(counts, "nf4", plan.get_card("cpu")), profiles.recipe("any", PAPER)
    assert not model.packed
    without = model.healing(20, recipe, micro=(recipe.batch, False))
    assert model.healing(20, recipe) == without
    assert without.flops < model.healing(20, recipe, micro=(recipe.batch, True)).flops


# ---- what is there ---------------------------------------------------------------------------


def test_what_is_not_to_be_had_is_not_missing(output):
    """Scores of a healing that failed."""
    distances = distance_maps.of_model("tiny-random", SMOKE)
    block = Block(distances.best_start(2), 2)
    for seed in (0, 1, 2):
        recipe = profiles.recipe("tiny-random", SMOKE, seed=seed)
        healing = request.healing("tiny-random", SMOKE, block, recipe)
        (keyed,) = fetching.keyed_by_machine([healing])
        cache.save("healing", keyed.params, [{}], 1, "diverged")
    planned = plan.planned(SMOKE, ["06"], CARD)
    healed = [one for one in planned if "-s" in one.job.name]
    assert len(healed) == 3
    assert not any(one.missing for one in healed)
