"""The plan: what is counted against what runs, what is there, and the hours of the profiles."""

import shutil
import socket
from dataclasses import replace

import pytest
from conftest import EXPERTS, architectures, tiny
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import Bench, Measured
from lib import counting
from lib.blocks import Block
from lib.models import files, layers, machine, registry, sizes
from replication import __main__ as run
from replication import measure, paths, plan, profiles
from replication.measure import (
    cache,
    distance_maps,
    experiments,
    fetching,
    request,
    restore,
    scores,
)
from replication.run.notebooks import NOTEBOOKS

SMOKE, PAPER = profiles.get("smoke"), profiles.get("paper")
CARD = plan.get_card("a100-80")


# ---- what a layer takes ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, count, megabytes",
    [("mistral-7b", 24, 5.34), ("llama-2-7b", 24, 5.20), ("qwen-14b", 30, 9.19)],
)
def test_training_keeps_what_a_whole_micro_batch_was_seen_to_keep(name, count, megabytes):
    """Of a token: the peak of 16 joined documents on the meta device, under autocast."""
    of = counting.counted(files.configuration(name))
    assert (count * of.kept + of.loss) / 1e6 == pytest.approx(megabytes, rel=0.07)
    matrices = of.parameters.matrices[0]
    assert of.forward[0] == pytest.approx(2 * matrices, rel=0.05)  # and attention
    assert of.training[0] == pytest.approx(2 * of.forward[0], rel=0.05)
    assert of.forward[1] < of.training[1] / 2


@pytest.mark.parametrize("architecture", architectures())
def test_every_architecture_is_counted(architecture):
    config = tiny(architecture).config
    of, parameters = counting.counted(config), sizes.parameters(tiny(architecture))
    assert of.parameters == parameters and of.forward[0] > 0
    assert parameters.size() == sum(p.numel() for p in tiny(architecture).parameters())
    cut = layers.meta_model(layers.pruned_config(config, range(2, len(parameters.layers))))
    assert parameters.outside + sum(parameters.layers[2:]) == cut.num_parameters()
    assert (of.adapter > 0) == (of.training[0] > of.forward[0]) == (architecture not in EXPERTS)


def test_a_run_takes_the_flops_that_were_planned(output, small, few_articles, monkeypatch):
    """Sweeps and a healing on C4, whose texts are longer than is read of them.

    PyTorch does not count attention on a CPU, so it is planned for next to no tokens.
    """
    monkeypatch.setattr(counting, "TOKENS", 2)
    profile = replace(SMOKE, models=(small,), heal_packed=True)
    distances, block = distance_maps.of_model(small, profile), Block(1, 2)
    heals = request.healing(small, profile, block, profiles.recipe(small, profile, rank=1))
    swept = experiments.unhealed(small, distances, profile, ["c4"])
    model = plan.Loaded(counting.counted(files.configuration(small)), None, CARD)
    requests = {plan.key_of(one): one for one in [*swept, heals]}
    *scored, healed = (work.flops for work in plan.works(model, requests.values()))
    with FlopCounterMode(display=False) as sweeping:
        scores.table(swept)
    assert sum(scored) == pytest.approx(sweeping.get_total_flops(), rel=0.06)
    with FlopCounterMode(display=False) as healing:
        scores.fetch([heals])
    assert healed == pytest.approx(healing.get_total_flops(), rel=0.1)


# ---- hours and memory ------------------------------------------------------------------------


def test_the_rates_reproduce_a_published_speed():
    """FMS, LoRA of Mistral-7B in 16 bits on one A100-80, 4 sequences of 4,096, recomputed: 3,597.6
    tokens a second (foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv,
    row 12)."""
    recipe = profiles.recipe("mistral-7b", PAPER, steps=1, batch=4, max_tokens=4096, packed=True)
    work = plan.Loaded(plan.counted("mistral-7b"), None, CARD).healing(32, recipe, micro=(4, True))
    assert work.tokens / CARD.seconds(work) == pytest.approx(3597.6, rel=0.15)


def test_less_memory_takes_more_time():
    recipe = profiles.recipe("llama-2-7b", PAPER)
    cards = [CARD._replace(memory=gigabytes) for gigabytes in (200, 83, 39, 20, 5)]
    models = [plan.Loaded(plan.counted("llama-2-7b"), "nf4", card) for card in cards]
    hours = [CARD.seconds(model.healing(24, recipe)) for model in models]
    assert hours == sorted(hours) and len({*hours}) > 3
    assert [model.packed for model in models] == [False, False, True, True, True]
    assert models[-1].weights(32) < 0.4 * models[0].weights(32)


@pytest.mark.parametrize(
    "profile, card, most",
    [
        (profiles.get("a100"), "a100-80", 12),
        (profiles.get("a100", ["qwen3-8b"]), "a100-80", 14),
        (profiles.get("overnight", ["qwen2.5-coder-1.5b"]), "t4", 2),
        (PAPER, "a100-80", 1500),
    ],
)
def test_a_profile_takes_its_hours_and_fits(output, profile, card, most):
    card = plan.get_card(card)
    works = [work for one in plan.planned(profile, list(NOTEBOOKS), card) for work in one.works]
    assert most / 2 < sum(map(card.seconds, works)) / 3600 <= most
    assert max(work.memory for work in works) <= card.memory * 1e9


@pytest.mark.parametrize(
    "listed, visible, name",
    [
        (["NVIDIA A100-SXM4-40GB"], None, "a100-40"),
        (["NVIDIA A100 80GB PCIe"], None, "a100-80"),
        (["NVIDIA H100 80GB HBM3"], None, "h100"),
        (["NVIDIA H200"], None, "h200"),
        (["NVIDIA H200", "Tesla T4"], "1,0", "t4"),
        (["Tesla V100-SXM2-16GB"], "GPU-8b2c", "v100-16"),
        (["Tesla V100-SXM2-32GB"], None, "v100-32"),
        (["Tesla T4"], "", "cpu"),
        ([], None, "cpu"),
    ],
)
def test_the_card_at_hand(listed, visible, name, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(machine, "listed_gpus", lambda: listed)
    assert plan.get_card() == plan.cards()[name]


def test_a_card_reaches_the_share_that_was_measured(tmp_path, monkeypatch):
    """By `make gpu`: of all forward passes together, and of all steps of healing."""
    bench = Bench("any", 10, PAPER, CARD, False)
    for kind, flops, share in [("scores", 6e15, 0.5), ("scores", 2e15, 0.5), ("healing", 6e15, 2)]:
        work = plan.Work(kind, 1, flops, moved=1e12, weights=1e12, memory=0)
        bench.planned(kind, Measured(CARD.seconds(work) / share), work)
    before, file = plan.cards(), tmp_path / "cards.csv"
    gpu.keep(gpu.measured_card(bench), file)
    monkeypatch.setattr(plan, "CARDS", file)
    after = plan.cards()
    changed = after.pop("a100-80")
    assert changed.source.startswith("measured by `make gpu`")
    assert changed == CARD._replace(forward=0.5, training=2, source=changed.source)
    assert after == {name: card for name, card in before.items() if name != "a100-80"}


# ---- what is there ---------------------------------------------------------------------------


def states(*notebooks: str) -> list[dict]:
    record = list(restore.records(paths.RECORDED / "smoke"))
    return [dict(one.states) for one in plan.planned(SMOKE, notebooks, CARD, record)]


def test_what_is_done_recorded_in_an_older_definition_or_missing(output, monkeypatch):
    """A map of an earlier version tells which blocks it chose: what is there of them is found."""
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    assert all(of.keys() == {"missing"} for of in states("01", "02", "06"))
    maps, _ = measure.distances(SMOKE)
    measure.table(experiments.unhealed, maps, SMOKE)
    count = len(measure.table(experiments.test_split, maps, SMOKE))
    healed = states("01", "02", "06")
    assert [of.keys() for of in healed] == [{"done"}, {"done"}, *[{"missing"}] * 3]
    (file,) = (paths.RESULTS / "similarity").glob("*/*.json")
    content = file.read_text()
    file.write_text(content[:100])
    assert states("01") == [{"missing": 1}]  # a damaged one is not there
    file.write_text(content)
    shutil.rmtree(paths.RESULTS)
    shutil.copytree(paths.TABLES / "smoke", paths.RECORDED / "smoke")
    assert states("01", "02", "06") == healed
    monkeypatch.setitem(cache.VERSIONS, "similarity", 99)
    assert states("01", "02") == [{"older": 1}, healed[1]]
    monkeypatch.setitem(cache.VERSIONS, "scores", 99)
    assert states("01", "02") == [{"older": 1}, {"older": healed[1]["done"]}]
    few = replace(SMOKE, arc_easy_questions=3, mmlu_questions=3, boolq_questions=3, c4_sequences=3)
    assert count and "older" not in plan.planned(few, ["02"], CARD)[0].states


def test_what_is_not_to_be_had_is_not_missing(output):
    """Scores of a healing that failed, and what a model writes where the whole one solves none."""
    distances = distance_maps.of_model("tiny-random", SMOKE)
    block = Block(distances.best_start(2), 2)
    for seed in (0, 1, 2):
        recipe = profiles.recipe("tiny-random", SMOKE, seed=seed)
        healing = request.healing("tiny-random", SMOKE, block, recipe)
        (keyed,) = fetching.keyed_by_machine([healing])
        cache.save("healing", keyed.params, {"status": "diverged"}, 1, "diverged")
    healed = [one for one in plan.planned(SMOKE, ["06"], CARD) if "-s" in one.job.name]
    assert len(healed) == 3 and not any(one.missing for one in healed)

    def written() -> int:
        return sum(one.writes for job in plan.planned(SMOKE, ["11"], CARD) for one in job.missing)

    before = written()
    (whole,) = fetching.keyed_by_machine(experiments.unpruned("tiny-random", SMOKE, ["gsm8k"]))
    for value, left in ((0.5, before - 1), (0.0, 0)):
        cache.save("scores", whole.params, {"value": value}, seconds=1)
        assert written() == left


# ---- the command -----------------------------------------------------------------------------


def test_a_plan_needs_no_network_and_says_what_it_cannot_count(output, capsys, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)
    models = ["smollm2-135m", "mistralai/Mistral-7B-v0.1", "nobody/knows-it"]
    command = ["--profile", "a100", "--models", *models, "--only", "01", "02"]
    assert run.main([*command, "--plan", "--card", "h100", "--cards", "8"]) == 0
    printed = capsys.readouterr().out
    assert registry.label("smollm2-135m") in printed and "on 8 such cards" in printed
    assert "Not counted: nobody/knows-it." in printed
    assert run.main([*command, "--plan", "--card", "abacus"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Unknown card 'abacus': choose one of a100-40, ")


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_every_result_of_every_profile_is_counted_once(name, output):
    """All notebooks but those that only draw."""
    jobs = plan.planned(profiles.get(name), list(NOTEBOOKS), CARD)
    keys = [plan.key_of(one) for job in jobs for one in job.missing]
    assert len({*keys}) == len(keys) > 0
    assert all(work.flops > 0 for job in jobs for work in job.works)
    assert all(len(job.works) == len(job.missing) for job in jobs)
    measuring = {number for number in NOTEBOOKS if NOTEBOOKS[number].experiments}
    assert measuring - {one.job.notebook for one in jobs} <= {"05", "06"}  # shared
