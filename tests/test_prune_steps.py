"""What `make prune` computes: which texts choose, fit and judge, and what is healed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import tokenizers
import torch
from conftest import LAYERS, letters, logits, stored, tiny
from least_squares import by_hand, z_of

from lib import cards, evaluation
from lib.blocks import UNPRUNED, Block, BlockDistances
from lib.data import sets
from lib.healing import Recipe, linear
from lib.healing.training import Healed
from lib.prune import Options, options, plan, prune, steps
from lib.pruning import dropped

C4 = "wheels"
QUESTIONS = [name for name in options.TASKS if name != "c4"]
OF_CPU = Recipe(
    steps=80,
    max_tokens=256,
    learning_rate=3e-3,
    rank=8,
    warmup_steps=8,
    packed=True,
    source="c4",
    batch=1,
    dropout=0.0,
    seed=0,
    first_layer=0,
    all_linear=True,
    decay_steps=0,
    beginnings_first=True,
)
OF_GPU = replace(OF_CPU, steps=20, warmup_steps=5, batch=4, all_linear=False)


pytestmark = pytest.mark.usefixtures("computes_in_fp32")


@pytest.fixture
def healings(monkeypatch, ids) -> list[tuple]:
    """The recipe of each healing of `prune`, which trains nothing, and the logits of its model."""
    noted = []

    def note(model, tokenizer, recipe, folder, **_):
        noted.append((recipe, logits(model, ids)))
        return Healed(None, [], "ok", 1, 1.0, 0)

    monkeypatch.setattr(steps, "heal", note)
    return noted


# ---- healing -------------------------------------------------------------------------------


def test_what_is_healed_is_the_cut_with_its_map_and_how(small, base, tmp_path, healings, ids):
    """The map is there once, and is that of the texts to heal on."""
    call = Options(small, layers=2, start=2, repair="map", heal=20, limit=4, tasks="c4")
    prune(call, tmp_path / "smaller")
    ((recipe, healed),) = healings
    assert recipe == OF_CPU
    assert call.recipe(299_999_999, on_cpu=False) == OF_GPU
    assert call.recipe(300_000_000, on_cpu=True) == replace(OF_CPU, learning_rate=3e-4)
    model, block = tiny("llama"), Block(2, 2)
    texts = base[1](sets.c4("train", C4, 4), truncation=True, max_length=256).input_ids
    change = by_hand(model, block, "folded", texts)[0]
    weight = z_of(model, block, "folded").weight.data
    weight += change.T.to(weight) @ weight
    with dropped(model, block):
        torch.testing.assert_close(healed, logits(model, ids), atol=1e-4, rtol=1e-4)


def test_the_rate_is_that_of_the_whole_models_size(small, base, tmp_path, healings, monkeypatch):
    """Also in the plan, however much is cut."""
    monkeypatch.setattr(options, "SMALL", base[0].num_parameters())
    call = Options(small, layers=LAYERS - 1, heal=1, limit=2, tasks="c4")
    prune(call, tmp_path / "smaller")
    planned = []
    healing = cards.ModelOnCard.healing
    monkeypatch.setattr(
        cards.ModelOnCard,
        "healing",
        lambda model, left, recipe, *at_once: (
            planned.append(recipe) or healing(model, left, recipe, *at_once)
        ),
    )
    plan.prune_table(call, cards.get_card("cpu"))
    assert healings[0][0].learning_rate == 3e-4
    assert planned == [healings[0][0]]


def test_texts_that_heal_judge_nothing():
    judging = {*sets.c4("validation", C4, None)}
    for source in ("c4", C4):
        assert not judging & {*sets.healing_texts(source, 10)}
    assert len(judging) > 300


# ---- texts that choose, fit and judge ------------------------------------------------------


@pytest.fixture
def read(monkeypatch) -> list[tuple]:
    """Texts that `steps` reads, in order, with the tokens of each at most; nothing is computed."""
    noted = []

    def batches(texts, tokenizer, max_tokens, *_, **__):
        noted.append((texts, max_tokens))

    def of_least_loss(model, tokenizer, blocks, texts, max_tokens):
        noted.append((texts, max_tokens))
        return blocks[-1]

    def fitted_all(model, blocks, names, batches):
        return {block: {"folded": (block, {})} for block in blocks}

    distances = np.zeros((LAYERS + 1, LAYERS + 1))
    monkeypatch.setattr(steps, "calibration_batches", batches)
    monkeypatch.setattr(steps, "block_distances", lambda *_: BlockDistances(*[distances] * 3, 2))
    monkeypatch.setattr(steps, "of_least_loss", of_least_loss)
    monkeypatch.setattr(linear, "fitted_all", fitted_all)
    return noted


@pytest.mark.parametrize("by", ["similarity", "loss"])
def test_32_texts_of_256_tokens_choose(by, base, read):
    steps.choose(Options("a", layers=2, by=by), *base)
    assert read == [(sets.c4("train", C4, 32), 256)]


@pytest.mark.parametrize(
    "limit, texts, fitted", [(1000, "", 96), (60, "", 52), (12, "", 4), (1000, "notes.txt", 62)]
)
def test_no_map_is_fitted_on_the_texts_that_judge(
    limit, texts, fitted, base, read, tmp_path, monkeypatch
):
    """However few there are. For one block nothing is judged."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("\n".join(map(str, range(80))))  # of which 70 train
    call = Options("a", layers=2, by="map", repair="map", limit=limit, texts=texts)
    work = steps.Work(call, [], tmp_path)
    steps.fit_map(work, *base, steps.choose(call, *base))
    given = sets.c4("train", texts or C4, fitted + 8)
    assert read == [(given[:-8], 256), (given[-8:], 256)]
    assert len(given) == fitted + 8
    assert work.results["map"] == {"fit_texts": fitted, "judging_texts": 8}
    read.clear()
    steps.fit_map(work, *base, [Block(2, 2)])
    assert read == [(given[:96], 256)]
    assert work.results["map"]["judging_texts"] == 0


def test_what_is_scored_and_how_much(monkeypatch):
    asked = []

    def task(name: str, source: str, **counts) -> evaluation.Task:
        asked.append((name, source, counts))
        return evaluation.Task(name, ())

    monkeypatch.setattr(evaluation, "task", task)
    every = Options("a", layers=1, tasks="mmlu arc_easy boolq")
    every.scored()
    assert asked == [
        ("c4", C4, {"sequences": 32, "max_tokens": 256}),
        ("mmlu", C4, {"subjects": 10, "questions": 10, "shots": 5, "shot_order": 0}),
        ("arc_easy", C4, {"questions": 200, "shots": 0, "shot_order": 0}),
        ("boolq", C4, {"questions": 200}),
    ]
    asked.clear()
    replace(every, limit=7).scored()
    assert [counts.get("sequences", counts.get("questions")) for *_, counts in asked] == [7] * 4
    assert asked[1][2] == {"subjects": 10, "questions": 7, "shots": 5, "shot_order": 0}


@pytest.mark.parametrize("floor, cuts", [(0.63, ["c4", *QUESTIONS]), (0.65, ["c4"])])
def test_cuts_are_asked_what_the_whole_model_can_answer(floor, cuts, base, tmp_path, monkeypatch):
    """It is asked alone, and first; its score must be four standard errors above the floor."""
    asked = []

    def score(model, tokenizer, blocks, tasks):
        asked.append((len(blocks), [task.name for task in tasks]))
        row = {"value": 0.8, "standard_error": 0.04, "n": 99, "examples": [1], "weights": [1]}
        versions = max(1, len(blocks))
        return pd.DataFrame([{"task": task.name} | row for task in tasks for _ in range(versions)])

    monkeypatch.setattr(steps, "sweep", score)
    monkeypatch.setattr(steps, "baseline_scores", lambda *_, **__: {"own": floor, "letter": 0.26})
    call = Options("a", layers=2, tasks=" ".join(QUESTIONS), limit=2)
    work = steps.Work(call, call.scored(), tmp_path)
    work.ask_whole(*base)
    work.score(*base, {"whole": UNPRUNED, "cut": Block(2, 2)})
    assert asked == [(0, [task]) for task in QUESTIONS] + [(2, cuts)]
    assert {*work.results["unasked"]} == {*QUESTIONS} - {*cuts}


def test_a_plan_counts_what_each_choice_and_score_reads(monkeypatch):
    runs, forward = {}, cards.ModelOnCard.forward

    def note(model, kind, read, layers, batch):
        runs[kind] = list(layers)
        return forward(model, kind, read, layers, batch)

    monkeypatch.setattr(cards.ModelOnCard, "forward", note)
    for by, layers in {"similarity": [32], "loss": [32, *range(25)]}.items():
        plan.prune_table(Options("mistral-7b", layers=8, by=by), cards.get_card("t4"))
        assert runs["choosing"] == layers
        assert runs["scoring c4"] == [32, 24, 24, 24]
        assert runs["scoring mmlu"] == [32, 32, 24, 24, 24]  # the whole model first


# ---- blocks that cannot be mapped, and what cannot be read -----------------------------------


@pytest.mark.parametrize("by", ["similarity", "loss", "map"])
def test_blocks_without_a_foldable_map_drop_out(by, base, tmp_path):
    """Of layers of two kinds: only layers 1 and 4 have an FFN and no experts."""
    model = tiny("qwen3_moe")
    call = Options("a", layers=1, by=by, repair="map", limit=12)
    blocks = steps.choose(call, model, base[1])
    assert {block.start for block in blocks} <= {2, 5}
    assert len(blocks) == (2 if by == "map" else 1)
    assert steps.fit_map(steps.Work(call, [], tmp_path), model, base[1], blocks).start in (2, 5)
    layers = model.model.layers
    layers[1].mlp = layers[4].mlp = layers[0].mlp
    with pytest.raises(ValueError, match="Leave out REPAIR=map"):
        steps.choose(call, model, base[1])


def nan(folder):
    model = tiny("llama")
    model.model.layers[3].mlp.up_proj.weight.data[0, 0] = torch.nan
    stored(model, folder)


def embeddings(folder):
    model = tiny("llama")
    model.resize_token_embeddings(60)
    stored(model, folder)


def end(folder):
    stored(tiny("llama"), folder)
    tokenizer = letters()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)


def short(folder):
    """Of letters alone a tokenizer without a token for the beginning makes one token each."""
    stored(tiny("llama"), folder)
    tokenizer = letters()
    tokenizer.backend_tokenizer.post_processor = tokenizers.processors.Sequence([])
    tokenizer.save_pretrained(folder)


UNREADABLE = {  # what makes it, and what is said
    nan: "The loss of .* is nan",
    embeddings: "token 9., and the model has embeddings of 0 to 59",
    end: "this tokenizer has none",
    short: "No text of c4 has two tokens",
}


@pytest.mark.parametrize("make", UNREADABLE)
def test_what_cannot_be_read_ends_before_anything_long(make, tmp_path, monkeypatch):
    make(tmp_path / "model")
    (tmp_path / "letters.txt").write_text("\n".join("abcdefghijklmnopqrst"))
    monkeypatch.setattr(steps, "choose", lambda *_: pytest.fail("goes on"))
    texts = str(tmp_path / "letters.txt") if make == short else ""
    call = Options(str(tmp_path / "model"), layers=2, heal=1, limit=4, tasks="c4", texts=texts)
    with pytest.raises(ValueError, match=UNREADABLE[make]):
        prune(call, tmp_path / "smaller")


def test_a_block_with_nan_is_never_the_best(base, monkeypatch):
    blocks = [Block(start, 2) for start in range(3)]
    losses = [0.5, np.nan, 2.0, 1.0]  # the first is the whole model's
    monkeypatch.setattr(steps, "sweep", lambda *_: pd.DataFrame({"value": losses}))
    assert steps.of_least_loss(*base, blocks, ["a"], 256) == blocks[2]
    matrix = np.ones((LAYERS + 1, LAYERS + 1))
    matrix[0, 2], matrix[3, 5] = np.nan, 0
    monkeypatch.setattr(steps, "block_distances", lambda *_: BlockDistances(*[matrix] * 3, 2))
    assert steps.choose(Options("a", layers=2), *base) == [Block(3, 2)]
