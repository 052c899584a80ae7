"""The plan: FLOPs as PyTorch counts them, sums as the experiments have them, bytes by hand."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import Distances
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, PhiConfig

from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu.bench import Bench, Measured
from lib.blocks import STRATEGIES, Block
from lib.healing import Recipe, lora, packing
from lib.healing.recipe import memory_fallbacks
from lib.models import registry
from lib.models.shapes import Shape
from replication import __main__ as run
from replication import cards, costs, paths, plan, profiles, token_counts
from replication.beyond import repair
from replication.measure import distance_maps, experiments, fetching, request, scores
from replication.run.missing import Guess, key_of
from replication.run.notebooks import NOTEBOOKS

SMOKE, PAPER, A100 = (profiles.get(name) for name in ("smoke", "paper", "a100"))
SHAPE = Shape("llama", 10, 64, 128, 4, 2, 1000)
CARD = cards.Card("test", "GPU", 1e12, 2e12, 100, 1e11, 5e10, 1, 0.5, "stated")
TINY = costs.Loaded(registry.MODELS["tiny-random"].shape, None, CARD)


def recipe(**changes) -> Recipe:
    sizes = {"steps": 2, "max_tokens": 16, "rank": 4, "warmup_steps": 0}
    return Recipe(**sizes | {"learning_rate": 1e-3, "packed": True, "source": "wheels"} | changes)


# ---- FLOPs, bytes, hours -------------------------------------------------------------------


@pytest.fixture
def packed(monkeypatch):
    """NF4 stays packed, however small the model is."""
    monkeypatch.setattr(costs, "UNPACKED", 0)


def test_nf4_is_unpacked_once_where_a_third_of_the_card_holds_it():
    """As `load` does it, by the whole model, also where layers are dropped."""
    whole = 2 * SHAPE.parameters()
    roomy, tight = (CARD._replace(memory=3 * whole + extra) for extra in (1, -1))
    unpacked, packed = (costs.Loaded(SHAPE, "nf4", card) for card in (roomy, tight))
    assert unpacked.weights(5) == 2 * SHAPE.parameters(5) and unpacked.unpacked(10) == 0
    assert packed.weights(5) < unpacked.weights(5) and packed.unpacked(10) > 0
    assert costs.Loaded(SHAPE, None, tight).unpacked(10) == 0


def test_a_healing_by_hand(packed):
    """A layer: attention 2·64·(64 + 32), FFN 3·64·128; 8 layers, 2 steps of 16 · 16 tokens."""
    loaded, matrices = costs.Loaded(SHAPE, "nf4", CARD), 12_288 + 24_576
    adapters = 4 * 8 * (2 * (64 + 128) + 128 + 64)
    work = loaded.healing(8, recipe())
    assert work.tokens == 512
    assert work.flops == 512 * (
        2 * 2 * 8 * matrices  # forward, and back through frozen layers
        + 3 * 4 * 8 * 64 * 8  # attention, 8 tokens back on average
        + 2 * 2 * 64 * 1000  # lm_head
        + 6 * adapters
    )
    outside = 2 * 64 * 1000 + 64 + 8 * 2 * 64
    row = 16 * (2 * ((8 + 3) * 64 + 3 * 128) + 12 * 1000)
    weights = 0.516 * 8 * matrices + 2 * outside
    assert work.memory == pytest.approx(weights + row + 16 * adapters)
    assert work.row == 256 and loaded.micro_batch(8, recipe()) == (16, False)
    numbers = 8 * 64 + 6 * 128 + 4 * (64 + 32)
    assert work.moved == pytest.approx(512 * 8 * 21 * numbers)
    assert work.unpacked == pytest.approx(2 * 2 * 8 * matrices * 2.516)  # 2 rows, there and back
    products = work.flops / 2e12 * (1 + 100 / 256)
    seconds = products + work.moved / 1e11 + work.unpacked / 5e10
    assert CARD.hours(work) == pytest.approx(2 * seconds / 3600)  # half of the speed
    assert CARD.seconds(work._replace(kind="scores")) == pytest.approx(seconds)
    on_cpu = costs.Loaded(SHAPE, "nf4", CARD._replace(gpu=""))
    assert on_cpu.weights(10) == 2 * SHAPE.parameters()  # where NF4 is unpacked
    assert on_cpu.healing(8, recipe()).unpacked == 0


def test_recomputing_costs_a_second_forward_pass(packed):
    """Of all that the passes take: FLOPs without lm_head and adapters, bytes, unpacking."""
    loaded, own = costs.Loaded(SHAPE, "nf4", CARD), recipe()
    kept, again = (loaded.healing(8, own, micro=(16, flag)) for flag in (False, True))
    context = token_counts.read_texts(1, 16, packed=True).context
    assert again.flops - kept.flops == pytest.approx(512 * 8 * loaded.layer_flops(context))
    assert again.moved / kept.moved == pytest.approx(1.4)
    assert again.unpacked / kept.unpacked == pytest.approx(1.5)
    assert again.row == kept.row


def test_fewer_sequences_at_a_time_unpack_more_often_and_multiply_more_slowly(packed):
    loaded, own = costs.Loaded(SHAPE, "nf4", CARD), recipe()
    sixteen, one = (loaded.healing(8, own, micro=(micro, False)) for micro in (16, 1))
    assert one.unpacked == pytest.approx(16 * sixteen.unpacked)
    assert one.row == sixteen.row / 16 and one.flops == sixteen.flops
    assert CARD.seconds(one) > CARD.seconds(sixteen)


def test_a_healing_takes_what_fits():
    """Ever less memory: fewer sequences at a time, and at last a second forward pass."""
    shape, own = registry.shape("llama-2-7b"), profiles.recipe("llama-2-7b", PAPER)
    ways = []
    for gigabytes in (200, 83, 41, 20, 14, 5):
        loaded = costs.Loaded(shape, "nf4", CARD._replace(memory=gigabytes * 1e9))
        ways.append(loaded.micro_batch(24, own))
    assert ways[0] == (16, False) and ways[-1] == memory_fallbacks(16)[-1]
    places = [memory_fallbacks(16).index(way) for way in ways]
    assert places == sorted(places) and len(set(places)) > 3


def test_the_clock_reproduces_a_published_speed():
    """FMS, LoRA of Mistral-7B in 16 bits on one A100-80, 4 sequences of 4,096, recomputed: 3,597.6
    tokens a second (foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv,
    row 12)."""
    card = cards.get_card("a100-80")
    loaded = costs.Loaded(registry.shape("mistral-7b"), None, card)
    step = recipe(batch=4, max_tokens=4096, rank=16, steps=1)
    work = loaded.healing(32, step, micro=(4, True))
    assert work.tokens / card.seconds(work) == pytest.approx(3597.6, rel=0.15)


def test_short_rows_are_what_an_h100_is_slow_at():
    """A text at a time instead of 16: what it costs, as a multiple of the time of a long row."""
    times = {}
    for name in ("a100-80", "h100"):
        card = cards.get_card(name)
        loaded = costs.Loaded(registry.shape("llama-2-70b"), "nf4", card)
        own = profiles.recipe("llama-2-70b", PAPER)
        long, short = (card.seconds(loaded.healing(40, own, micro=m)) for m in ((16, 0), (1, 0)))
        times[name] = short / long
    assert times["h100"] > times["a100-80"] > 1.5


CONFIGS = {"llama-2-7b": LlamaConfig, "phi-2": PhiConfig}


@pytest.mark.parametrize("first_layer", [0, 5])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_healing_takes_the_flops_that_pytorch_counts(name, first_layer):
    """Of few tokens: PyTorch counts all of attention, of which half is needed."""
    shape = registry.shape(name)
    config = CONFIGS[name](
        num_hidden_layers=8,
        hidden_size=shape.hidden,
        intermediate_size=shape.ffn,
        num_attention_heads=shape.heads,
        vocab_size=shape.vocab_size,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=packing.NAME)
    one = recipe(steps=1, batch=1, max_tokens=64, dropout=0.0, first_layer=first_layer, rank=64)
    ids = torch.zeros(1, 64, dtype=torch.long, device="meta")
    with lora.new_lora(model, one) as wrapped, FlopCounterMode(display=False) as counter:
        wrapped(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    work = costs.Loaded(shape, None, CARD).healing(8, one)
    assert work.flops == pytest.approx(counter.get_total_flops(), rel=0.08 if first_layer else 0.05)


def test_notebook_14_takes_the_flops_that_pytorch_counts(output, few_articles, monkeypatch):
    """Sweeps, linear maps and healings, on C4: all its texts are longer than is read of them."""
    monkeypatch.setattr(repair, "TASKS", ("c4",))
    monkeypatch.setattr(packing, "_reads_apart", lambda model: True)  # not counted: the trial
    profile = replace(SMOKE, arc_easy_test_questions=0)
    requests = []
    for experiment in (repair.maps, repair.healings):
        for one in experiment("tiny-random", Distances(), profile):
            requests += [one.healing, one] if one.recipe else [one]
    planned = plan.works(TINY, requests, set())
    with FlopCounterMode(display=False) as counter:
        repair.measure({"tiny-random": Distances()}, profile, repair.maps)
        repair.measure({"tiny-random": Distances()}, profile, repair.healings)
    counted = counter.get_total_flops()
    assert sum(work.flops for work in planned) == pytest.approx(counted, rel=0.1)


def test_a_longer_healing_begins_with_a_shorter_one():
    profile = replace(SMOKE, heal_decay=0.25)
    recipes = [profiles.recipe("tiny-random", profile, steps=steps) for steps in (8, 16)]
    short, long = (request.healing("tiny-random", profile, Block(2, 2), one) for one in recipes)
    (alone,) = plan.works(TINY, [long], set())
    _, after = plan.works(TINY, [short, long], set())
    assert after.flops == pytest.approx(alone.flops * (16 - 6) / 16)


def hours(profile: profiles.Profile, name: str) -> float:
    """Of all its notebooks on a card, by the plan."""
    card = cards.get_card(name)
    return sum(job.hours(card) for job in plan.planned(profile, list(NOTEBOOKS), card))


def fits(profile: profiles.Profile, card: cards.Card) -> set[str]:
    """How each job fits."""
    return {plan.fit(card, [job]) for job in plan.planned(profile, list(NOTEBOOKS), card)}


def test_a_t4_measures_a_small_model_in_two_hours(output):
    small = profiles.get("overnight", ["qwen2.5-coder-1.5b"])
    assert hours(small, "t4") <= 2
    assert fits(small, cards.get_card("t4")) <= {"yes", "done"}


def test_the_paper_takes_a_third_of_the_hours_it_took(output):
    """Of 5,562, which it took with ranks of 70B by both strategies, 60,000 texts, twelve depths."""
    assert hours(PAPER, "a100-80") <= 5562 / 3
    twelve = tuple(i / 16 for i in range(1, 13))
    whole = replace(PAPER, heal_fractions=twelve, ablation_fractions=twelve)
    before = replace(whole, c4_sequences=60_000, rank_simple_names=())
    steps = [before, replace(before, rank_simple_names=PAPER.rank_simple_names), whole, PAPER]
    taken = [hours(profile, "a100-80") for profile in steps]
    assert taken == sorted(taken, reverse=True) and len({round(t) for t in taken}) == 4


@pytest.mark.parametrize("model", ["mistral-7b", "qwen3-8b", "llama-3.1-8b", "olmo-2-7b"])
def test_a_night_of_an_a100_has_every_figure_with_signal(model, output):
    night, card = profiles.get("a100", [model]), cards.get_card("a100-80")
    assert hours(night, "a100-80") <= 12
    assert fits(night, card) <= {"yes", "done"}
    assert night.mmlu_subjects * night.mmlu_questions >= 1425 and night.boolq_questions == 3270
    assert night.c4_sequences >= 1000 and night.c4_tokens == 2048
    layers = registry.num_layers(model)
    assert len(night.healed_sizes(layers)) == 6 and len(night.ablation_sizes(layers)) == 2
    assert night.healed_strategies(model) == night.rank_strategies(model) == STRATEGIES
    assert night.study_models == night.ablation_models == night.rank_models == (model,)


# ---- what is counted -----------------------------------------------------------------------


def test_every_result_is_counted_once(output):
    guess = Guess("tiny-random", 8)
    experiments_of_all = [one for notebook in NOTEBOOKS.values() for one in notebook.experiments]
    asked = [one for of in experiments_of_all for one in of("tiny-random", guess, SMOKE)]
    asked += [one.healing for one in asked if one.recipe]
    works = [work for job in plan.planned(SMOKE, list(NOTEBOOKS), CARD) for work in job.works]
    counted = [work for work in works if work.kind != "maps"]
    assert len(counted) == len({key_of(one) for one in asked}) < len(asked)


def test_what_models_write_waits_for_their_weights(packed):
    """GSM8K: a pass a token, of all texts that are written together; 8 of 10 layers."""
    loaded = costs.Loaded(SHAPE, "nf4", CARD)
    params = {"task": "gsm8k", "questions": 64, "shots": 5, "new_tokens": 100, "batch_tokens": 1}
    work, prompt = loaded.writing(8, params), token_counts.read_problems(params)[1]
    assert work.tokens == 64 * (prompt + 100)  # 32 at once, twice
    matrices = 12_288 + 24_576
    assert work.unpacked == pytest.approx((200 + 2) * 8 * matrices * 2.516)
    context = prompt + 50
    written = 6400 * (8 * (2 * matrices + 4 * 64 * context) + 2 * 64 * 1000)
    read = 64 * prompt * 8 * (2 * matrices + 2 * 64 * prompt)
    assert work.flops == pytest.approx(read + written)
    products = read * (1 + 100 / 32 / prompt) + written * (1 + 100 / 32)
    assert work.flops * (1 + 100 / work.row) == pytest.approx(products)
    assert work.moved > 200 * 32 * context * 8 * 2 * 32 * 2  # keys and values, each step
    small = CARD._replace(memory=loaded.weights(8) + 2 * 4 * (prompt + 100) * 8 * 2 * 32 * 2 + 1)
    fewer = costs.Loaded(SHAPE, "nf4", small).writing(8, params)
    assert fewer.unpacked == pytest.approx(8 * work.unpacked)  # 4 at once
    assert CARD.seconds(fewer) > CARD.seconds(work)


def test_no_pruned_model_is_asked_where_the_whole_one_solves_no_problem(output):
    """What the machine that made the map has left; a profile with other counts tells nothing."""
    distance_maps.of_model("tiny-random", SMOKE)
    (whole,) = experiments.unpruned("tiny-random", SMOKE, ["gsm8k"])
    (keyed,) = fetching.keyed_by_machine([whole])

    def writing() -> int:
        return sum(one.writes for job in plan.planned(SMOKE, ["11"], CARD) for one in job.missing)

    before = writing()
    assert before > 1
    results.save("scores", keyed.params | {"questions": 3}, {"value": 0.0}, seconds=1)
    assert writing() == before
    results.save("scores", keyed.params, {"value": 0.5}, seconds=1)
    assert writing() == before - 1
    results.save("scores", keyed.params, {"value": 0.0}, seconds=1)
    assert writing() == 0


def test_a_sweep_is_layers_times_tokens():
    """Notebook 02: of each task the whole model, and from its cut on every block."""
    guess, flops = Guess("phi-2", 32), 0
    for task in experiments.TASKS:
        scored = experiments.unhealed("phi-2", guess, PAPER, [task])
        blocks = {one.block for one in scored}
        read = token_counts.read_task(scored[0].params)
        layers = sum(32 - block.stop for block in blocks)  # the unpruned one stops at 0
        layer = 2 * (4 * 2560**2 + 2 * 2560 * 10_240) + 4 * 2560 * read.context
        flops += read.tokens * layers * layer + read.scored * len(blocks) * 2 * 2560 * 51_200
    profile = replace(PAPER, models=("phi-2",))
    _, job = plan.planned(profile, ["01", "02"], CARD)
    assert sum(work.flops for work in job.works) == pytest.approx(flops)


def done(*notebooks: str) -> list[bool]:
    record = results.archive(paths.RECORDED / "smoke").records()
    recorded = {result["key"]: result for result in record}
    return [not job.missing for job in plan.planned(SMOKE, list(notebooks), CARD, recorded)]


def test_what_is_stored_or_recorded_is_not_counted(output, monkeypatch):
    assert done("01", "06") == [False] * 5
    distances = distance_maps.of_model("tiny-random", SMOKE)
    assert done("01", "02") == [True, False]
    scores.unhealed({"tiny-random": distances}, SMOKE)
    scores.score_table({"tiny-random": distances}, experiments.test_split, SMOKE)
    assert done("01", "02") == [True, True]
    (file,) = (paths.RESULTS / "similarity").glob("*/*.json")
    content = file.read_text()
    file.write_text(content[:100])
    assert done("01") == [False]  # a damaged one is not there
    file.write_text(content)
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    shutil.move(paths.RESULTS, paths.RECORDED / "smoke")
    assert done("01", "02", "06") == [True, True, *[False] * 3]


def test_a_map_of_an_earlier_version_is_missing_and_still_tells_what_else_is(output, monkeypatch):
    """As the recorded ones: the blocks that they chose are there, and are found again."""
    distances = distance_maps.of_model("tiny-random", SMOKE)
    scores.unhealed({"tiny-random": distances}, SMOKE)
    scores.score_table({"tiny-random": distances}, experiments.test_split, SMOKE)
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    shutil.move(paths.RESULTS, paths.RECORDED / "smoke")
    monkeypatch.setitem(results.VERSIONS, "similarity", 99)
    assert done("01", "02") == [False, True]
    table = plan.table(SMOKE, ["01", "02"], "cpu")
    assert "2 jobs, 1 done." in table and "older definition: 1 of 1 missing" in table
    monkeypatch.setitem(results.VERSIONS, "scores", 99)
    assert done("01", "02") == [False, False]


def test_a_healing_that_failed_leaves_no_scores_to_wait_for(output):
    distances = distance_maps.of_model("tiny-random", SMOKE)
    block = Block(distances.best_start(2), 2)
    scores.measure("tiny-random", SMOKE, [block], ["mmlu", "arc_easy", "c4"])
    recipes = [profiles.recipe("tiny-random", SMOKE, seed=seed) for seed in (0, 1, 2)]
    healings = [request.healing("tiny-random", SMOKE, block, one) for one in recipes]
    for healing in fetching.keyed_by_machine(healings):
        results.save("healing", healing.params, {"status": "diverged"}, seconds=1)
    assert done("06") == [True] * 5


def test_how_jobs_fit():
    def fits(*jobs: list[tuple[str, float]]) -> str:
        works = [[cards.Work(kind, 1, 1, memory) for kind, memory in job] for job in jobs]
        return plan.fit(CARD, [plan.Planned(None, ["a result"], of_job) for of_job in works])

    large, exact = ("scores", CARD.memory + 1), ("healing", CARD.memory)
    assert fits([exact], [exact]) == "yes"
    assert fits([exact], [exact, large]) == "1 of 2"
    assert fits([large]) == "does not fit"
    assert fits([("similarity", CARD.memory + 1), exact]) == "layer by layer"
    assert fits([]) == "shared with rows above"


def test_no_chain_of_the_paper_is_longer_than_a_week(output):
    """One job after the other, and on 32 cards; what has no room for more is the sum of all."""
    card = cards.get_card("a100-80")
    jobs = plan.planned(PAPER, list(NOTEBOOKS), card)
    chain, names = plan.longest_chain(jobs, card)
    assert names[0] == "llama-2-70b-map" and names[1].startswith("llama-2-70b-similarity-n")
    assert chain <= 7 * 24
    of_70b = [job for job in jobs if job.job.model == "llama-2-70b"]
    whole = sum(job.hours(card) for job in jobs)
    assert chain < plan.on_cards(of_70b, card, 32) < plan.on_cards(jobs, card, 32) < 150
    assert plan.on_cards(jobs, card, 32) > whole / 32
    assert plan.on_cards(jobs, card, 1) == pytest.approx(whole)
    assert plan.on_cards(jobs, card, len(jobs)) == pytest.approx(chain)


# ---- cards ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listed, name",
    [
        ("NVIDIA A100-SXM4-40GB, 40960", "a100-40"),
        ("NVIDIA A100-SXM4-80GB, 81920", "a100-80"),
        ("NVIDIA H100 80GB HBM3, 81559", "h100"),
        ("NVIDIA H200, 143771", "h200"),
        ("Tesla T4, 15360", "t4"),
        ("Tesla V100-SXM2-16GB, 16384", "v100-16"),
        ("Tesla V100-SXM2-32GB, 32768", "v100-32"),
        ("No devices were found", "cpu"),
        ("", "cpu"),
    ],
)
def test_the_card_at_hand(listed, name, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer = subprocess.CompletedProcess([], 0, f"{listed}\n{listed}\n")
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: answer)
    assert cards.get_card()._replace(element=2) == cards.cards()[name]


@pytest.mark.parametrize("visible, asked", [(None, "0"), ("2,3", "2"), ("GPU-8b2c", "GPU-8b2c")])
def test_the_card_at_hand_is_the_first_visible_one(monkeypatch, visible, asked):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    def smi(command, **kwargs):
        assert command[:3] == ["nvidia-smi", "-i", asked]
        return subprocess.CompletedProcess(command, 0, "Tesla T4, 15360\n")

    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(subprocess, "run", smi)
    assert cards.get_card().name == "t4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert cards.get_card().name == "cpu"


def test_a_card_without_rates_is_one_sentence(monkeypatch, capsys):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    answer = subprocess.CompletedProcess([], 0, "NVIDIA L40S, 46068")
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: answer)
    for given, name in (([], "NVIDIA L40S"), (["--card", "abacus"], "abacus")):
        assert run.main(["--plan", "--only", "01", *given]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"Unknown card '{name}': choose one of a100-40, a100-80, ")
        assert printed.err.count("\n") == 1 and not printed.out


def test_a_card_reaches_the_share_that_was_measured(tmp_path, monkeypatch):
    """By `make gpu`: of all forward passes together, and of all steps of healing."""
    card = cards.get_card("h100")
    bench = Bench("any", 10, PAPER, card, False)
    for kind, flops, share in [("scores", 6e15, 0.5), ("scores", 2e15, 0.5), ("healing", 6e15, 2)]:
        work = cards.Work(kind, 1, flops, 0, row=2048, moved=1e12, unpacked=1e12)
        bench.planned(kind, Measured(card.seconds(work) / share), work)
    shutil.copy(cards.CARDS, tmp_path)
    monkeypatch.setattr(cards, "CARDS", tmp_path / "cards.csv")
    before = cards.cards()
    gpu.keep(gpu.measured_card(bench), cards.CARDS)
    after = cards.cards()
    assert (after["h100"].forward, after["h100"].training) == (0.5, 2)
    assert after["h100"]._replace(forward=1, training=1, source="") == card._replace(source="")
    assert after["h100"].source.startswith("measured by `make gpu`")
    assert {**after, "h100": 0} == {**before, "h100": 0}
    took = after["h100"].seconds(work._replace(kind="scores"))
    assert took == pytest.approx(2 * card.seconds(work))


# ---- the command ---------------------------------------------------------------------------


def test_a_plan_needs_neither_torch_nor_the_network(tmp_path):
    code = (
        "import socket, sys; from replication import __main__ as run; socket.socket = None; "
        "status = run.main(['--plan', '--profile', 'paper', '--card', 'h100']); "
        "sys.exit(status or bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 110
    for name in PAPER.models:
        assert done.stdout.count(registry.label(name)) >= 3


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_every_profile_is_planned(name, output):
    """All notebooks but those that only draw."""
    jobs = plan.planned(profiles.get(name), list(NOTEBOOKS), CARD)
    measuring = {number for number in NOTEBOOKS if NOTEBOOKS[number].experiments}
    assert {planned.job.notebook for planned in jobs} <= measuring
    assert measuring - {planned.job.notebook for planned in jobs} <= {"05", "06"}  # shared
    assert all(work.flops > 0 for planned in jobs for work in planned.works)


def test_the_readmes_say_what_the_plan_says(output):
    readme = (paths.ROOT / "replication" / "README.md").read_text(encoding="utf-8")
    one = replace(PAPER, models=("mistral-7b",))
    assert plan.table(one, list(NOTEBOOKS), "a100-80") in readme
    ladder = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert 9 < hours(A100, "a100-80") <= 12
    assert "| 12 hours of an A100 | `make figures PROFILE=a100`" in ladder
    total = re.search(r"rest: ([\d,]+) hours", plan.table(PAPER, list(NOTEBOOKS), "a100-80"))[1]
    assert f"take {total} hours" in readme
    weeks = float(total.replace(",", "")) / 24 / 7
    assert f"takes [{weeks:.0f} weeks]" in ladder
