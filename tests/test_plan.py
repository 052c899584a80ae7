"""The plan of a run: its formulas against real counts, its fits at their boundaries."""

import inspect
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import transformers
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from lib import pruning, similarity
from lib.blocks import STRATEGIES, UNPRUNED, Block
from lib.data.encoding import Row
from lib.evaluation import Task
from lib.healing import linear, lora, packing, training
from lib.healing.recipe import Recipe, memory_fallbacks
from lib.models import files, loading, registry
from lib.models.decoder import decoder_layers
from lib.models.reading import prefix_batches
from lib.models.shapes import Shape, of_config
from lib.pruning import dropped
from lib.sweep import sweep, target_logprobs
from replication import __main__ as run
from replication import paths, profiles, results
from replication.beyond import dose, repair, which_block
from replication.measure import damage, distance_maps, experiments, fetching, scores
from replication.plan import assumptions, costs, estimates, printing
from replication.plan.assumptions import Card, Reading
from replication.profiles import recipe
from replication.run import notebooks
from replication.run.jobs import Job, jobs
from scripts import lengths as measure_lengths
from tests import conftest

SMOKE = profiles.get("smoke")
PAPER = profiles.get("paper")
SHAPE = Shape("llama", 10, 64, 128, 4, 2, 1000)
ASKED = {"sequences": 100, "max_tokens": 64, "batch_tokens": 256}
NOTEBOOKS = list(notebooks.NOTEBOOKS)


def card(memory: float, on_cpu: bool = False) -> Card:
    return Card("test", memory, 1e12, 0.5e12, "stated", on_cpu=on_cpu)


def packed(**changes) -> Recipe:
    return Recipe(**{
        "steps": 2, "max_tokens": 16, "learning_rate": 1e-3, "rank": 4, "warmup_steps": 0,
        "packed": True, "source": "wheels",
    } | changes)  # fmt: skip


# ---- formulas against counts of the real thing ---------------------------------------------


class Applications:
    """Counts applications of layers to tokens while a model runs."""

    def __init__(self, model):
        self.count = 0
        for layer in decoder_layers(model):
            layer.register_forward_hook(self.add)

    def add(self, module, args, output):
        state = output[0] if isinstance(output, tuple) else output
        self.count += state.shape[0] * state.shape[1]


@pytest.fixture
def model():
    return conftest.tiny("llama")


@pytest.fixture
def shape(model):
    return of_config(model.config.to_dict())


def test_a_sweep_applies_as_many_layers_as_planned(model, shape, tokenizer, monkeypatch):
    texts = ({"text": "one two three", "max_tokens": 9}, {"text": "four", "max_tokens": 9})
    task = Task("c4", texts)
    rows = [row for example in task.rows(tokenizer) for row in example]
    tokens = sum(own.ids.numel() for bundle in prefix_batches(rows, 64) for own in bundle.batches)
    monkeypatch.setattr(assumptions, "reading", lambda asked: Reading(tokens, tokens, 1))
    counted = Applications(model)
    sweep(model, tokenizer, [Block(1, 2), Block(2, 1)], [task], 64)
    cost = costs.sweep(shape, 6, [3, 3], {"batch_tokens": 64}, None, card(1e9))
    assert counted.count == cost.applications == tokens * (6 + 3 + 3)


def test_a_distance_map_applies_as_many_layers_as_planned(model, shape, ids, monkeypatch):
    monkeypatch.setattr(assumptions, "mean", lambda max_tokens: ids.shape[1])
    counted = Applications(model)
    mask = torch.ones_like(ids)
    similarity.block_distances(model, [{"input_ids": ids, "attention_mask": mask}])
    asked = {"sequences": len(ids), "max_tokens": ids.shape[1], "batch_tokens": ids.numel()}
    cost = costs.similarity(shape, asked, None, card(1e9))
    assert counted.count == cost.applications == ids.numel() * 6


def test_a_healing_applies_as_many_layers_as_planned(few_articles, tmp_path, monkeypatch):
    real = registry.MODELS["tiny-random"].shape
    model, tokenizer = loading.load("tiny-random", dtype="float32")
    cure = recipe("tiny-random", SMOKE)
    counted = Applications(model)
    monkeypatch.setattr(packing, "_reads_apart", lambda model: True)  # not counted: the trial
    with dropped(model, Block(3, 2)):
        training.heal(model, tokenizer, cure, tmp_path / "healed")
    cost = costs.healing(real, 6, cure, None, card(1e9), 16)
    assert counted.count == cost.applications == cure.steps * 16 * cure.max_tokens * 6


class Straight:
    """A map of the tiny model, whose blocks at one place are the most similar of each size."""

    num_layers = 6

    def best_start(self, size: int) -> int:
        return 1


def test_notebook_11_applies_as_many_layers_as_planned(model, shape, output, monkeypatch):
    """Every block and all states; every text has 8 tokens."""
    profile = replace(SMOKE, damage_sequences=10, damage_tokens=8)
    monkeypatch.setattr(assumptions, "mean", lambda max_tokens: max_tokens)
    read = lambda asked: Reading(7 * asked["sequences"], 7 * asked["sequences"], 4)  # noqa: E731
    monkeypatch.setattr(assumptions, "reading", read)  # a loss needs no state of the last token
    monkeypatch.setattr(loading, "load_cached", lambda *name, **how: (model, conftest.Characters()))
    for asked, measure in ((damage.requests, damage.measure), (which_block.requests, which_block.measure)):
        planned = estimates._costs(shape, asked("tiny-random", Straight(), profile), card(1e12))
        counted = Applications(model)
        measure({"tiny-random": Straight()}, profile)
        assert counted.count == sum(cost.applications for cost in planned) > 0


def test_notebook_12_takes_the_flops_that_pytorch_counts(output, few_articles, monkeypatch):
    """On C4, all of whose texts are longer than is read of them."""
    monkeypatch.setattr(studies, "TASKS", ("c4",))
    profile = replace(SMOKE, arc_easy_test_questions=0)
    monkeypatch.setattr(packing, "_reads_apart", lambda model: True)  # not counted: the trial
    asked = Job("12", "tiny-random").wanted(Straight(), profile)[1:]
    planned = estimates._costs(registry.MODELS["tiny-random"].shape, asked, card(1e12))
    with FlopCounterMode(display=False) as counter:
        repair.maps({"tiny-random": Straight()}, profile)
        repair.healings({"tiny-random": Straight()}, profile)
    assert sum(cost.flops for cost in planned) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_test_split_has_the_prompts_that_claim_9_compares():
    asked = experiments.prompts("tiny-random", Straight(), SMOKE)
    asked = [w for w in asked if w.params["task"] == "arc_easy_test"]
    sizes = [0, *SMOKE.healed_sizes(6)]
    told = [(w.labels["variant"], w.params["shots"], w.block.size) for w in asked]
    assert told == [(f"{k} examples", k, size) for k in (0, 5) for size in sizes]
    assert all(w.recipe for w in asked if w.block.size)
    few = replace(SMOKE, arc_easy_test_questions=0)
    tasks = {w.params["task"] for w in experiments.prompts("tiny-random", Straight(), few)}
    assert tasks == {"mmlu", "arc_easy"}


def test_models_that_are_healed_in_short_are_so_at_more_depths_and_of_one_strategy():
    overnight, names = profiles.get("overnight"), ("smollm2-135m", "qwen2.5-coder-1.5b")
    for name, strategies in zip(names, (["similarity", "simple"], ["similarity"]), strict=True):
        asked = experiments.healed(name, Straight(), overnight, ["c4"])
        curve = overnight.curve_sizes(6, name)
        told = [(w.labels["strategy"], w.block.size) for w in asked]
        assert told == [(strategy, size) for strategy in strategies for size in curve]
        mapped = repair.maps(name, Straight(), overnight)
        assert {w.labels["strategy"] for w in mapped if w.recipe} == set(strategies)
        assert {w.labels["strategy"] for w in mapped if w.kind == "repair"} == set(STRATEGIES)
    sizes = overnight.curve_sizes(28, names[1]), overnight.healed_sizes(28, names[1])
    assert sizes == ([3, 6, 8, 11, 14], [3, 6, 11])  # a line through the loss needs six points
    alone = replace(overnight, sizes=(8,))
    assert alone.curve_sizes(28, names[1]) == [8]


def test_jobs_of_notebooks_11_and_12_are_done_once_measured(output, few_articles):
    assert jobs_done(["11", "12"]) == [False, False]
    maps = {"tiny-random": distance_maps.of_model("tiny-random", SMOKE)}
    damage.measure(maps, SMOKE)
    assert jobs_done(["11", "12"]) == [False, False]
    which_block.measure(maps, SMOKE)
    assert jobs_done(["11", "12"]) == [True, False]
    repair.measure(maps, SMOKE)
    assert jobs_done(["11", "12"]) == [True, False]
    repair.measure(maps, SMOKE, repair.healings)
    assert jobs_done(["11", "12"]) == [True, True]


def test_a_profile_may_study_fewer_models_beyond_the_paper():
    """Notebooks 10 to 12; a run of other models studies all of them."""
    overnight = profiles.get("overnight")
    studied = {job.model for job in jobs(overnight, ["10", "11", "12"])}
    assert studied == {"smollm2-135m", "qwen2.5-coder-1.5b"}
    assert {job.model for job in jobs(overnight, ["02"])} == set(overnight.models)
    other = replace(overnight, models=("qwen2.5-coder-0.5b",))
    assert {job.model for job in jobs(other, ["11"])} == {"qwen2.5-coder-0.5b"}
    assert PAPER.study_models == PAPER.models


def test_names_of_the_plan_are_those_of_the_code():
    assert repair.KINDS == tuple(linear.KINDS)
    assert costs.COMPARED == similarity.TOKENS


def kept_for_backward(model) -> int:
    """Bytes that autograd keeps of one training step with fresh adapters, weights apart."""
    ids = torch.randint(3, 64, (2, 128))
    with lora.new_lora(model, packed()) as wrapped, lora.autocast_like(model):
        wrapped.train()
        own = {parameter.untyped_storage().data_ptr() for parameter in wrapped.parameters()}
        seen = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage.data_ptr()] = storage.nbytes(), tensor  # held, so that none is reused
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            wrapped(input_ids=ids, labels=ids, attention_mask=torch.ones_like(ids))
    return sum(size for size, _ in seen.values())


SIZES = {
    "vocab_size": 64, "hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TRAINED = {
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "mistral": transformers.MistralConfig,
    "smollm3": transformers.SmolLM3Config,
    "olmo2": transformers.Olmo2Config,
    "gemma3": transformers.Gemma3TextConfig,
    "phi": transformers.PhiConfig,
    "phi3": transformers.Phi3Config,
    "gpt_neox": transformers.GPTNeoXConfig,
}


def bf16(architecture: str, num_layers: int, **changes):
    grouped = {} if architecture == "gpt_neox" else {"num_key_value_heads": 2, "head_dim": 32}
    grouped = {} if architecture == "phi" else grouped
    config = TRAINED[architecture](**SIZES | grouped | changes, num_hidden_layers=num_layers)
    return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)


@pytest.mark.parametrize("architecture", TRAINED)
def test_what_a_layer_keeps_for_the_backward_pass(architecture):
    few, more = bf16(architecture, 2), bf16(architecture, 4)
    counted = (kept_for_backward(more) - kept_for_backward(few)) / 2 / (2 * 128)
    planned = costs.kept(of_config(few.config.to_dict()), 4, card(1e9, on_cpu=True))
    assert planned == pytest.approx(counted, rel=0.02)


def peak_bytes(work) -> int:
    """The most memory that PyTorch holds at once while it works, on the CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("vocab_size", [500, 20_000])
@pytest.mark.parametrize("architecture", ["llama", "phi"])
def test_peak_memory_of_a_healing_step(architecture, vocab_size, recomputes):
    model = bf16(architecture, 6, vocab_size=vocab_size)
    ids = torch.randint(3, 64, (4, 128))
    with lora.new_lora(model, packed()) as wrapped, lora.autocast_like(model):
        wrapped.train()
        if recomputes:
            model.activation_checkpointing_enable()
        peak = peak_bytes(
            lambda: wrapped(input_ids=ids, labels=ids, attention_mask=ids > 0).loss.backward()
        )
    shape = of_config(model.config.to_dict())
    how = packed(max_tokens=128), None, card(1e9, on_cpu=True), 4, recomputes
    cost = costs.healing(shape, 6, *how)
    assert cost.activations == pytest.approx(peak, rel=0.15)


@pytest.mark.parametrize("prefix", [0, 200])
def test_peak_memory_of_a_sweep(prefix, monkeypatch):
    """With shared prefixes it is their keys and values that fill the memory."""
    model = bf16("llama", 12, vocab_size=500).eval()
    shape = of_config(model.config.to_dict())
    own = 12 if prefix else 100
    shared = tuple(range(3, 3 + prefix))
    rows = [Row(shared + (i,) * own, ((5, 6),), "all" if prefix else None) for i in range(3, 131)]
    blocks = [UNPRUNED, *(Block(5, n) for n in range(1, 7)), *(Block(11 - n, n) for n in (1, 2))]
    batch = max(len(own.ids) for bundle in prefix_batches(rows, 512) for own in bundle.batches)
    read = Reading(1, 1, 1, held=prefix, repeated=batch * prefix / 512)
    monkeypatch.setattr(assumptions, "reading", lambda asked: read)
    after = [12 - block.stop for block in blocks[1:]]
    cost = costs.sweep(shape, 12, after, {"batch_tokens": 512}, None, card(1e9, on_cpu=True))
    peak = peak_bytes(lambda: target_logprobs(model, blocks, rows, 512, "rows"))
    assert cost.activations == pytest.approx(peak, rel=0.25)


@pytest.mark.parametrize("tokens", [40, 400])
def test_peak_memory_of_reading_states(tokens):
    model = bf16("llama", 12, vocab_size=500).eval()
    ids = torch.randint(3, 64, (tokens,))
    shape, asked = of_config(model.config.to_dict()), {"sequences": 1, "max_tokens": tokens}
    cost = costs.states(shape, asked, None, card(1e9, on_cpu=True))
    peak = peak_bytes(lambda: similarity.of_text(model, ids))
    assert cost.activations == pytest.approx(peak, rel=0.25)


@pytest.mark.parametrize("tokens", [16, 128])
def test_peak_memory_of_fitting_maps(tokens):
    model = bf16("llama", 4, vocab_size=500).eval()
    ids = torch.randint(3, 64, (16, tokens))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    asked = {"map_sequences": 16, "map_tokens": tokens, "map_batch_tokens": ids.numel()}
    cost = costs.fitting(of_config(model.config.to_dict()), 3, asked, None, card(1e9, True))
    peak = peak_bytes(lambda: linear.fitted(model, Block(1, 2), linear.KINDS, [batch]))
    assert cost.activations == pytest.approx(peak, rel=0.25)


def test_the_plan_assumes_what_the_code_does():
    assert inspect.signature(training.heal).parameters["micro_batch"].default == packed().batch


# ---- by hand -------------------------------------------------------------------------------


def test_a_healing_counted_by_hand():
    """A layer: attention 2·64·(64 + 32), FFN 3·64·128; 8 layers, 2 steps of 16 · 16 tokens."""
    cost = costs.healing(SHAPE, 8, packed(), "nf4", card(1e9), 4)
    tokens, matrices = 512, 12_288 + 24_576
    parameters = 4 * 8 * (2 * (64 + 128) + 128 + 64)
    assert cost.tokens == tokens
    assert cost.flops == (
        2 * 2 * tokens * 8 * matrices  # forward, and back through frozen layers
        + 3 * 4 * tokens * 8 * 64 * 8  # attention, 8 tokens back on average
        + 2 * 2 * tokens * 64 * 1000  # lm_head
        + 6 * tokens * parameters
    )
    outside = 2 * 64 * 1000 + 64 + 8 * 2 * 64
    assert cost.weights == pytest.approx(0.516 * 8 * matrices + 2 * outside)
    assert cost.optimizer == 16 * parameters
    assert cost.seconds(card(1e9)) == pytest.approx(
        cost.flops / 0.5e12 + cost.read / assumptions.DISK
    )


def test_a_micro_batch_holds_at_most_its_documents():
    sizes = [assumptions.largest(64, 16, micro) for micro in (1, 4, 16)]
    assert sizes == sorted(sizes) and sizes[0] == 64
    assert 4 * assumptions.mean(64) < sizes[1] <= 4 * 64
    assert assumptions.context(64) <= 32


def test_nf4_is_unpacked_on_a_cpu():
    whole = costs.weights(SHAPE, 10, "nf4", card(1e9, on_cpu=True))
    assert whole == 2 * SHAPE.parameters() > costs.weights(SHAPE, 10, "nf4", card(1e9))


# ---- what fits, and how --------------------------------------------------------------------


def test_a_map_is_read_layer_by_layer_where_the_weights_do_not_fit():
    weights = costs.weights(SHAPE, 10, None, card(0))
    assert costs.similarity(SHAPE, ASKED, None, card(weights)).how == "whole"
    streamed = costs.similarity(SHAPE, ASKED, None, card(weights - 1))
    assert streamed.how == "layer by layer" and streamed.weights < weights
    many = costs.similarity(SHAPE, ASKED | {"sequences": 64 * 4 + 1}, None, card(weights - 1))
    assert streamed.read == SHAPE.parameters() * 2 and many.read == 2 * streamed.read


def healed_in(memory: float) -> costs.Cost:
    plain = replace(PAPER, quantization=None)
    asked = request.healing("any", plain, Block(7, 2), packed())
    return estimates._of_call(SHAPE, [asked], card(memory))[0]


@pytest.mark.parametrize("place", range(6))
def test_a_healing_takes_less_and_less_memory_until_it_fits(place):
    tried = [costs.healing(SHAPE, 8, packed(), None, card(0), *how) for how in memory_fallbacks(16)]
    assert healed_in(tried[place].memory) == tried[place]
    below = healed_in(tried[place].memory - 1)
    assert below == tried[min(place + 1, 5)]
    assert (below.memory < tried[place].memory) == (place < 5)  # else it does not fit


def row(monkeypatch, memory: float, notebook: str = "03") -> str:
    monkeypatch.setitem(assumptions.GPUS, "a100-40", card(memory))
    profile = replace(PAPER, models=("phi-2",), heal_fractions=(0.25, 0.5))
    return printing.table(profile, [notebook], "a100-40").splitlines()[5]


def test_the_table_says_how_many_jobs_fit(monkeypatch, output):
    shape, own = registry.MODELS["phi-2"].shape, recipe("phi-2", PAPER)
    more, fewer = (
        costs.healing(shape, layers, own, "nf4", card(0), 1, True).memory for layers in (24, 16)
    )
    assert row(monkeypatch, 1e12).endswith("m 16")
    one = lambda job, *_: [request.healing("phi-2", PAPER, Block(3, job.size), own)]  # noqa: E731
    monkeypatch.setattr(Job, "wanted", one)
    assert row(monkeypatch, more).endswith("m 1, 2 recompute")
    assert row(monkeypatch, more - 1).endswith("m 1, 1 recompute, 1 not")
    assert row(monkeypatch, fewer - 1).endswith("does not fit")


def test_a_model_of_unknown_sizes_is_named_as_such(tmp_path, output):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "rwkv", "n_layers": 7}))
    profile = profiles.get("paper", models=[str(tmp_path), "nobody/knows", "phi-2"])
    text = printing.table(profile, ["01"], "h100").splitlines()
    assert [line.endswith("sizes unknown without the hub") for line in text[5:8]] == [
        True, True, False,
    ]  # fmt: skip


def test_experts_cannot_be_healed(tmp_path, output):
    transformers.MixtralConfig(**conftest.GROUPED).save_pretrained(tmp_path)
    text = printing.table(profiles.get("quick", models=[str(tmp_path)]), ["01", "03"], "h100")
    assert "whole" in text.splitlines()[5]
    assert text.splitlines()[6].endswith("its experts cannot be healed")


# ---- what is there already, and what is counted once ---------------------------------------


def jobs_done(notebooks: list[str]) -> list[bool]:
    return [estimate.done for estimate in estimates.estimates(SMOKE, notebooks, card(1e12))]


def test_jobs_are_done_once_their_results_are_there(output, few_articles):
    notebooks = ["01", "02", "03", "06"]
    assert jobs_done(notebooks) == [False] * 5
    distances = distance_maps.of_model("tiny-random", SMOKE)
    assert jobs_done(notebooks) == [True] + [False] * 4
    maps = {"tiny-random": distances}
    scores.unhealed(maps, SMOKE)
    scores.score_table(maps, experiments.test_split, SMOKE)
    assert jobs_done(notebooks) == [True, True, False, False, False]
    scores.healed(maps, SMOKE, sizes=[2])
    scores.score_table(maps, dose.requests, SMOKE)
    assert jobs_done(notebooks) == [True, True, True, False, False]
    for seed in (1, 2):
        scores.healed(maps, SMOKE, experiments.TASKS, ["similarity"], [2], seed=seed)
    assert jobs_done(notebooks) == [True, True, True, False, True]


def test_what_is_recorded_is_done(output, monkeypatch):
    """`make record` resumes from it."""
    monkeypatch.setattr(paths, "RECORDED", output / "recorded")
    distance_maps.of_model("tiny-random", SMOKE)
    shutil.move(paths.RESULTS, paths.RECORDED / "smoke")
    assert jobs_done(["01", "06"]) == [True, False]


def test_a_longer_healing_is_planned_from_the_state_of_a_shorter_one():
    shape, profile = registry.MODELS["tiny-random"].shape, replace(SMOKE, heal_decay=0.25)
    one, two = (
        request.healing("tiny-random", profile, Block(2, 2), recipe("tiny-random", profile, steps=n))
        for n in (8, 16)
    )
    assert [w.recipe.steps for w in two.shorter][:1] == [8]
    together = estimates._costs(shape, [one, two], card(1e12))
    alone = [estimates._costs(shape, [w], card(1e12))[0] for w in (one, two)]
    assert together[0].flops == alone[0].flops
    assert together[1].flops == pytest.approx(alone[1].flops * (16 - 6) / 16)


def test_a_healing_that_failed_leaves_no_scores_to_wait_for(output):
    distances = distance_maps.of_model("tiny-random", SMOKE)
    assert jobs_done(["06"]) == [False]
    block = pruning.similarity_block(distances, 2)
    scores.measure("tiny-random", SMOKE, [block], ["mmlu", "arc_easy", "c4"])
    for seed in (0, 1, 2):
        cure = recipe("tiny-random", SMOKE, seed=seed)
        (asked,) = fetching.keyed_by_machine([request.healing("tiny-random", SMOKE, block, cure)])
        results.save("healing", asked.params, {"status": "diverged"}, seconds=1)
    assert jobs_done(["06"]) == [True]


def test_damaged_results_are_not_there(output):
    distance_maps.of_model("tiny-random", SMOKE)
    (file,) = (paths.RESULTS / "similarity").glob("*/*.json")
    file.write_text(file.read_text()[:100])
    assert jobs_done(["01"]) == [False]


def test_a_result_that_several_need_is_counted_once():
    alone = estimates.estimates(PAPER, ["02"], card(1e12))
    both = estimates.estimates(PAPER, ["02", "03"], card(1e12))
    assert [e.costs for e in both if e.job.notebook == "02"] == [e.costs for e in alone]
    healed = [e for e in both if e.job == Job("03", "phi-2", 2)][0]
    assert sum(cost.micro_batch > 0 for cost in healed.costs) == 2  # one for each strategy
    assert len(healed.costs) == 2 + 2 * 4
    kept = registry.MODELS["phi-2"].shape.parameters(30) * 2
    assert [cost.read for cost in healed.costs] == [kept, 0, 0, 0, 0] * 2  # loaded, then healed
    seeds = estimates.estimates(PAPER, ["03", "06"], card(1e12))[-1]
    assert sum(cost.micro_batch > 0 for cost in seeds.costs) == 2  # the third is notebook 03's


def test_a_cpu_is_planned_at_the_rate_of_its_results(output):
    stated = replace(assumptions.get("cpu"), element=4)
    assert estimates.adjusted(stated, SMOKE) == stated
    distance_maps.of_model("tiny-random", SMOKE)
    (file,) = (paths.RESULTS / "similarity").glob("*/*.json")
    record = json.loads(file.read_text())
    record["seconds"] = 2.0
    file.write_text(json.dumps(record))
    asked = {"sequences": 20, "max_tokens": 24, "batch_tokens": SMOKE.batch_tokens}
    cost = costs.similarity(registry.MODELS["tiny-random"].shape, asked, None, stated)
    assert estimates.adjusted(stated, SMOKE).rate == pytest.approx(cost.flops / 2)
    cure = recipe("tiny-random", SMOKE)
    (asked,) = fetching.keyed_by_machine([request.healing("tiny-random", SMOKE, Block(1, 2), cure)])
    results.save("healing", asked.params, {"status": "oom"}, 0, "oom")
    found = estimates.adjusted(stated, SMOKE)  # a healing that ended early tells no rate
    assert found.training_rate == stated.training_rate and "0 healings" in found.source


def test_only_the_sizes_asked_for_are_planned():
    asked = replace(SMOKE, sizes=(3,))
    for number in ("03", "10"):
        found = Job(number, "tiny-random").wanted(Straight(), asked)
        assert {w.block.size for w in found if w.recipe} - {0} == {3}, number


# ---- the command ---------------------------------------------------------------------------


def test_the_plan_of_the_paper(capsys, output):
    assert run.main(["--profile", "paper", "--plan", "--card", "a100-40"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    for name in PAPER.models:
        assert printed.count(registry.label(name)) >= 3
    assert not list(output.rglob("*"))


@pytest.mark.parametrize("name", profiles.PROFILES)
def test_every_profile_is_planned_whole(name, output):
    """All notebooks but those that draw what others measure."""
    text = printing.table(profiles.get(name), NOTEBOOKS, "a100-80")
    assert "\nNot counted: 00, 04, 08, 09, 13." in text
    weights = profiles.get(name).quantization or profiles.get(name).dtype or "bfloat16"
    assert f"\nWeights in {weights}. " in text


def test_an_unknown_card_is_one_sentence(capsys):
    assert run.main(["--plan", "--card", "abacus"]) == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err == "Unknown card 'abacus': choose one of a100-40, a100-80, h100, h200, cpu.\n"


def test_planning_loads_neither_torch_nor_transformers(tmp_path):
    code = (
        "import sys; from lib import profiles; from replication.plan import printing; "
        "printing.table(profiles.get('paper'), ['01', '02', '03', '05', '06', '07'], 'h100'); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_the_table_in_the_readme_is_that_of_now(output):
    readme = (paths.ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    table = printing.table(PAPER, NOTEBOOKS, "a100-40")
    assert table in readme
    rows = [line.split() for line in table.splitlines() if line.startswith("Mistral-7B")]
    days = sum(float(row[6]) for row in rows if row[1] in ("01", "02", "03")) / 24
    months = float(re.search(r"rest: ([\d,]+) hours", table)[1].replace(",", "")) / 24 / 30.4
    ladder = (paths.ROOT / "README.md").read_text(encoding="utf-8")
    assert "3 days of an A100" in ladder and round(days) == 3
    assert "all seven take [ten months]" in ladder and round(months) == 10


@pytest.mark.real
def test_the_lengths_are_those_of_the_data():
    measured = json.loads((paths.DATA / "token_counts.json").read_text(encoding="utf-8"))
    tokenizer = files.tokenizer(measure_lengths.MODEL)
    assert measure_lengths.documents(tokenizer) == measured["c4"]
    for task, shots in (("boolq", 0), ("arc_easy", 0), ("arc_easy", 5)):
        found = measure_lengths.questions(task, shots, tokenizer)
        assert found == measured[task][str(shots)]
