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
from lib.blocks import Block
from lib.healing import Recipe, lora, packing
from lib.models import registry
from lib.models.shapes import Shape
from replication import __main__ as run
from replication import paths, plan, profiles, results
from replication.beyond import repair
from replication.measure import distance_maps, experiments, fetching, request, scores
from replication.run.jobs import Job, jobs
from replication.run.missing import Guess, key_of
from replication.run.notebooks import NOTEBOOKS

SMOKE, PAPER = profiles.get("smoke"), profiles.get("paper")
SHAPE = Shape("llama", 10, 64, 128, 4, 2, 1000)
CARD = plan.Card("test", "GPU", 1e12, 2e12, 1e12, "stated")
TINY = plan.Loaded(registry.MODELS["tiny-random"].shape, None, CARD)


def recipe(**changes) -> Recipe:
    sizes = {"steps": 2, "max_tokens": 16, "rank": 4, "warmup_steps": 0}
    return Recipe(**sizes | {"learning_rate": 1e-3, "packed": True, "source": "wheels"} | changes)


# ---- FLOPs, bytes, hours -------------------------------------------------------------------


def test_a_healing_by_hand():
    """A layer: attention 2·64·(64 + 32), FFN 3·64·128; 8 layers, 2 steps of 16 · 16 tokens."""
    loaded, matrices = plan.Loaded(SHAPE, "nf4", CARD), 12_288 + 24_576
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
    assert work.hours(CARD) == work.flops / 1e12 / 3600
    assert work._replace(kind="scores").hours(CARD) == work.flops / 2e12 / 3600
    on_cpu = plan.Loaded(SHAPE, "nf4", CARD._replace(gpu=""))
    assert on_cpu.weights(10) == 2 * SHAPE.parameters()  # where NF4 is unpacked


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
    work = plan.Loaded(shape, None, CARD).healing(8, one)
    assert work.flops == pytest.approx(counter.get_total_flops(), rel=0.08 if first_layer else 0.05)


def test_notebook_14_takes_the_flops_that_pytorch_counts(output, few_articles, monkeypatch):
    """Sweeps, linear maps and healings, on C4: all its texts are longer than is read of them."""
    monkeypatch.setattr(repair, "TASKS", ("c4",))
    monkeypatch.setattr(packing, "_reads_apart", lambda model: True)  # not counted: the trial
    profile = replace(SMOKE, arc_easy_test_questions=0)
    requests = Job("14", "tiny-random").requests(Distances(), profile)[1:]
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


# ---- what is counted -----------------------------------------------------------------------


def test_every_result_is_counted_once(output):
    every = list(NOTEBOOKS)
    requests = [
        one for job in jobs(SMOKE, every) for one in job.requests(Guess("tiny-random", 8), SMOKE)
    ]
    works = [work for row in plan.rows(SMOKE, every, CARD) for job in row.works for work in job]
    results_of = [work for work in works if work.kind != "maps"]
    assert len(results_of) == len({key_of(one) for one in requests}) < len(requests)


def test_a_sweep_is_layers_times_tokens():
    """Notebook 02: of each task the whole model, and from its cut on every block."""
    guess, flops = Guess("phi-2", 32), 0
    for task in experiments.TASKS:
        scored = experiments.unhealed("phi-2", guess, PAPER, [task])
        blocks = {one.block for one in scored}
        read = plan.read_task(scored[0].params)
        layers = sum(32 - block.stop for block in blocks)  # the unpruned one stops at 0
        layer = 2 * (4 * 2560**2 + 2 * 2560 * 10_240) + 4 * 2560 * read.context
        flops += read.tokens * layers * layer + read.scored * len(blocks) * 2 * 2560 * 51_200
    profile = replace(PAPER, models=("phi-2",))
    _, row = plan.rows(profile, ["01", "02"], CARD)
    assert sum(work.flops for work in row.works[0]) == pytest.approx(flops)


def done(*notebooks: str) -> list[bool]:
    return [not job for row in plan.rows(SMOKE, notebooks, CARD) for job in row.missing]


def test_what_is_stored_or_recorded_is_not_counted(output, monkeypatch):
    assert done("01", "06") == [False, False]
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
    assert done("01", "02", "06") == [True, True, False]


def test_a_healing_that_failed_leaves_no_scores_to_wait_for(output):
    distances = distance_maps.of_model("tiny-random", SMOKE)
    block = Block(distances.best_start(2), 2)
    scores.measure("tiny-random", SMOKE, [block], ["mmlu", "arc_easy", "c4"])
    recipes = [profiles.recipe("tiny-random", SMOKE, seed=seed) for seed in (0, 1, 2)]
    healings = [request.healing("tiny-random", SMOKE, block, one) for one in recipes]
    for healing in fetching.keyed_by_machine(healings):
        results.save("healing", healing.params, {"status": "diverged"}, seconds=1)
    assert done("06") == [True]


def test_how_jobs_fit():
    def fits(*jobs: list[tuple[str, float]]) -> str:
        works = [[plan.Work(kind, 1, 1, memory) for kind, memory in job] for job in jobs]
        return plan.Row("any", "03", [["a result"]], works).fits(CARD)

    large, exact = ("scores", CARD.memory + 1), ("healing", CARD.memory)
    assert fits([exact], [exact]) == "yes"
    assert fits([exact], [exact, large]) == "1 of 2"
    assert fits([large]) == "does not fit"
    assert fits([("similarity", CARD.memory + 1), exact]) == "layer by layer"
    assert fits([]) == "shared with rows above"


# ---- cards ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listed, name",
    [
        ("NVIDIA A100-SXM4-40GB, 40960", "a100-40"),
        ("NVIDIA A100-SXM4-80GB, 81920", "a100-80"),
        ("NVIDIA H100 80GB HBM3, 81559", "h100"),
        ("NVIDIA H200, 143771", "h200"),
        ("No devices were found", "cpu"),
        ("", "cpu"),
    ],
)
def test_the_card_at_hand(listed, name, monkeypatch):
    answer = subprocess.CompletedProcess([], 0, f"{listed}\n{listed}\n")
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: answer)
    assert plan.get_card()._replace(element=2) == plan.cards()[name]


def test_a_card_without_rates_is_one_sentence(monkeypatch, capsys):
    answer = subprocess.CompletedProcess([], 0, "Tesla V100-SXM2-16GB, 16384")
    monkeypatch.setattr(shutil, "which", lambda program: program)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: answer)
    for given, name in (([], "Tesla V100-SXM2-16GB"), (["--card", "abacus"], "abacus")):
        assert run.main(["--plan", "--only", "01", *given]) == 2
        printed = capsys.readouterr()
        assert printed.err.startswith(f"Unknown card '{name}': choose one of a100-40, a100-80, ")
        assert printed.err.count("\n") == 1 and not printed.out


def test_measured_rates_replace_those_of_a_card(tmp_path, monkeypatch):
    """By `make gpu`: all forward passes together, and the quickest healing."""
    bench = Bench("any", 10, PAPER, plan.get_card("h100"), False)
    rows = [
        ("scores", 6e12, 3.0),
        ("scores", 2e12, 1.0),
        ("healing", 6e12, 6.0),
        ("healing", 6e12, 2.0),
    ]
    for kind, flops, seconds in rows:
        bench.planned(kind, Measured(seconds), plan.Work(kind, 1, flops, 0))
    shutil.copy(plan.CARDS, tmp_path)
    monkeypatch.setattr(plan, "CARDS", tmp_path / "cards.csv")
    before = plan.cards()
    gpu.keep(gpu.measured_card(bench), plan.CARDS)
    after = plan.cards()
    assert (after["h100"].forward, after["h100"].training) == (2e12, 3e12)
    assert after["h100"].source.startswith("measured by `make gpu`")
    assert {**after, "h100": 0} == {**before, "h100": 0}


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
    rows = plan.rows(profiles.get(name), list(NOTEBOOKS), CARD)
    assert {row.notebook for row in rows} == {n for n in NOTEBOOKS if NOTEBOOKS[n].experiments} | {
        "01"
    }
    assert all(work.flops > 0 for row in rows for job in row.works for work in job)


def test_the_readmes_say_what_the_plan_says(output):
    readme = (paths.ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    one = replace(PAPER, models=("mistral-7b",))
    assert plan.table(one, list(NOTEBOOKS), "a100-80") in readme
    card, ladder = plan.get_card("a100-80"), (paths.ROOT / "README.md").read_text(encoding="utf-8")
    works = [
        work
        for row in plan.rows(one, ["01", "02", "03"], card)
        for job in row.works
        for work in job
    ]
    assert round(sum(work.hours(card) for work in works) / 24) == 4
    assert "| 4 days of an A100 |" in ladder
    total = re.search(r"rest: ([\d,]+) hours", plan.table(PAPER, list(NOTEBOOKS), "a100-80"))[1]
    assert f"take {total} hours" in readme
    assert round(float(total.replace(",", "")) / 24 / 30.4) == 8
    assert "all seven take [eight months]" in ladder
