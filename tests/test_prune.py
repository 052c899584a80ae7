"""`make prune`: a model's name in, a smaller checkpoint out."""

import json
import re
import shlex
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import LAYERS, stored, tiny
from test_commands import start, text
from test_healing import Killed, killed_at
from test_repair import by_hand, z_of
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lib import paths, prune, pruning, storage
from lib.blocks import Block
from lib.data import sets, wheels
from lib.healing import linear, lora
from lib.models import loading, sizes
from lib.models.decoder import decoder_layers
from lib.prune import Options
from lib.pruning import dropped
from lib.similarity import block_distances, calibration_batches
from lib.sweep import sweep


def make_in_process(*variables: str) -> int:
    """Return the exit status of `make prune` with these variables, whose program runs here."""
    command = ["make", "-n", "-o", ".venv/installed", "prune", *variables]
    printed = subprocess.check_output(command, cwd=paths.ROOT, text=True)
    _, _, module, *words = shlex.split(printed)
    return start(module, *words)


@pytest.fixture(scope="module", autouse=True)
def computes_in_fp32():
    """As on a processor that is slow in bf16."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "default_dtype", lambda device: "float32")
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny model in bf16."""
    return str(stored(tiny("llama").to(torch.bfloat16), tmp_path_factory.mktemp("own") / "model"))


def options(model: str, **changes) -> Options:
    return Options(**{"model": model, "layers": 2, "limit": 4} | changes)


ALL = {"repair": "map", "heal": 3, "tasks": "arc_easy"}
VERSIONS = ["whole", "cut", "mapped", "healed, not merged", "healed"]


@pytest.fixture(scope="module")
def healed(model, tmp_path_factory):
    """A cut that was mapped and healed without an interruption, and its record."""
    out = tmp_path_factory.mktemp("healed") / "smaller"
    return out, prune.prune(options(model, **ALL), out)


def losses(record: dict) -> dict:
    return {row["version"]: row["scores"]["c4"][0] for row in record["versions"]}


@torch.inference_mode()
def first_letters(model, tokenizer) -> list[str]:
    """The likeliest token after each prompt."""
    ids = (tokenizer(prompt, return_tensors="pt").input_ids for prompt in prune.PROMPTS)
    return [tokenizer.decode(model(of.to(model.device)).logits[0, -1].argmax().cpu()) for of in ids]


def check(out, record: dict, computed: str) -> None:
    """Read a checkpoint by plain transformers, score it again, and compare it with its card."""
    assert record["computed"] == computed
    model, tokenizer = loading.load(str(out), dtype=computed)
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.config.num_hidden_layers == LAYERS - 2
    assert plain.dtype == torch.bfloat16
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.to(model.dtype), model.get_parameter(name).cpu())
    assert [after[0] for after in record["after"]["texts"]] == first_letters(model, tokenizer)
    row = record["versions"][-1]
    card = text(out / "README.md")
    assert row["parameters"] == sum(p.numel() for p in plain.parameters())
    tasks = options(str(out), tasks="arc_easy").scored()
    for score in sweep(model, tokenizer, [], tasks).itertuples():
        assert row["scores"][score.task] == pytest.approx((score.value, score.standard_error))
        assert f"{score.value:.3f} ± {score.standard_error:.3f}" in card


def test_the_checkpoint_scores_what_its_card_says(healed, model, tmp_path, monkeypatch):
    """Where it is computed in another format than that of the weights, and in the same."""
    check(*healed, "float32")
    mapped = tmp_path / "mapped"
    with monkeypatch.context() as patch:
        patch.setattr(linear, "RIDGES", (1e-6,))  # a map so large that rounding it shows
        check(
            mapped, prune.prune(options(model, repair="map", tasks="arc_easy"), mapped), "float32"
        )
    monkeypatch.setattr(loading, "default_dtype", lambda device: "bfloat16")
    monkeypatch.setattr(prune, "LARGE", 1)
    record = prune.prune(options(model, heal=1, tasks="arc_easy"), tmp_path / "smaller")
    check(tmp_path / "smaller", record, "bfloat16")
    assert "learning rate 0.0001 (by size" in text(tmp_path / "smaller" / "README.md")


def batches(texts: list[str], tokenizer):
    return calibration_batches(texts, tokenizer, prune.MAX_TOKENS, batch_tokens=2048)


def test_each_version_is_what_it_is_called(healed, model):
    """The whole and the cut, and the map of the very texts, rounded as it is saved."""
    record = healed[1]
    block, rows = Block(**record["block"]), record["versions"]
    assert [row["version"] for row in rows] == VERSIONS
    assert [row["layers"] for row in rows] == [LAYERS] + [LAYERS - 2] * 4
    base, tokenizer = loading.load(model, dtype="float32")
    assert [before[0] for before in record["before"]["texts"]] == first_letters(base, tokenizer)
    tasks = options(model).scored()
    whole, cut = sweep(base, tokenizer, [block], tasks).value
    chosen_on = batches(sets.c4("train", "wheels", 4), tokenizer)
    distances = block_distances(base, chosen_on).row(2)[1:]
    choice = record["choice"]
    assert [choice["value"], choice["next"]] == pytest.approx(sorted(distances)[:2])
    tokens = tokenizer(sets.healing_texts("wheels", 4)[:4], truncation=True, max_length=256)
    change, ridge, error = by_hand(base, block, "folded", tokens.input_ids)
    assert (record["map"]["ridge"], record["map"]["error"]) == pytest.approx((ridge, error))
    weight = z_of(base, block, "folded").weight.data
    weight[:] = (weight + change.T.to(weight) @ weight).bfloat16()
    with dropped(base, block):
        (mapped,) = sweep(base, tokenizer, [], tasks).value
    by_version = list(losses(record).values())
    assert by_version[:3] == pytest.approx([whole, cut, mapped], abs=1e-5)
    assert len(set(by_version)) == len(VERSIONS)
    assert rows[0]["gb"] == pytest.approx(2e-9 * base.num_parameters())


@pytest.mark.parametrize(
    "name, parameters, given, rate, rank",
    [
        ("mistralai/Mistral-7B-v0.1", 7 * 10**9, {}, 3e-6, 4),
        ("some/model", 10**9 - 1, {}, 1e-3, 8),
        ("some/model", 10**9, {}, 1e-4, 8),
        ("mistral-7b", 7 * 10**9, {"lr": 0.5, "rank": 2}, 0.5, 2),
    ],
)
def test_a_model_is_healed_at_its_own_rate_or_the_one_that_is_given(
    name, parameters, given, rate, rank
):
    """The paper's where it has one, else one by the model's size."""
    recipe = options(name, **given).recipe(parameters)
    assert (recipe.learning_rate, recipe.rank) == (rate, rank)


# ---- which block ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["damage", "arc_easy"])
def test_the_best_block_is_chosen_by_what_is_not_scored(model, by):
    """As by dropping each block in turn. The first one has no layer before it for a map."""
    call = options(model, by=by, limit=8, repair="map")
    base, tokenizer = loading.load(model, dtype="float32")
    choice = prune._choice(call, base, tokenizer, 2)
    values = {}
    for first in range(1, LAYERS - 1):
        with dropped(base, Block(first, 2)):
            values[first] = sweep(base, tokenizer, [], [call.choosing()]).value[0]
    best, second = sorted(values.values(), reverse=by != "damage")[:2]
    assert choice["value"] == pytest.approx(best, abs=1e-3)
    assert choice["next"] == pytest.approx(second, abs=1e-3)
    assert values[choice["start"]] == pytest.approx(best, abs=1e-3)
    assert values[choice["runner_up"]] == pytest.approx(second, abs=1e-3)


@pytest.mark.parametrize("task", prune.CHOOSING)
def test_questions_that_choose_are_not_scored(task):
    call = options("tiny-random", by=task, limit=2 if task == "mmlu" else 10)
    (scored,) = (each for each in call.scored() if each.name == task)
    choosing = call.choosing()
    assert choosing.name == task
    assert len(choosing.examples) == len(scored.examples)
    chooses = {example["prompt"] for example in choosing.examples}
    assert not chooses & {example["prompt"] for example in scored.examples}


def test_texts_that_choose_are_not_scored():
    chosen = {e["text"] for e in options("tiny-random", by="damage").choosing().examples}
    assert chosen == {*sets.c4("train", "wheels", 4)}


@pytest.mark.parametrize(
    "changes, first", [({"start": 1}, 1), ({"by": "simple"}, 3), ({"by": "exit"}, 4)]
)
def test_a_block_by_its_place(changes, first):
    call = options("tiny-random", **changes)
    assert prune._choice(call, tiny("llama"), None, 2) == {"start": first}


@pytest.mark.parametrize("share", [0.01, 0.3])
def test_the_fewest_layers_that_fit(share):
    """After them the weights fit, whichever they are; after one less some block would not do."""
    whole = tiny("lfm2")
    layers = [sum(p.numel() for p in layer.parameters()) for layer in decoder_layers(whole)]
    total = whole.num_parameters()
    gb = (total - share * sum(layers)) * 2e-9
    call = SimpleNamespace(layers=None, gb=gb, start=None)
    size = prune.size_of(call, sizes.parameters(whole), 2e-9)
    assert (total - size * min(layers)) * 2e-9 <= gb < (total - (size - 1) * min(layers)) * 2e-9


# ---- own texts -----------------------------------------------------------------------------

LINES = [f"text {number} of a file that is not C4" for number in range(20)]


@pytest.fixture(params=[".jsonl", ".txt"])
def own(request, tmp_path):
    """A file with 20 texts, one of them twice, and empty ones."""
    file = tmp_path / f"own{request.param}"
    texts = [*LINES, LINES[3], "", " "]
    if request.param == ".txt":
        file.write_text("\n".join(texts))
    else:
        pd.DataFrame({"text": texts}).to_json(file, orient="records", lines=True)
    return str(file)


def test_own_texts_judge_or_train(own):
    judging, training = (sets.c4(split, own, None) for split in ("validation", "train"))
    assert sorted(judging + training) == sorted(LINES)
    assert len(judging) == 3
    assert sets.healing_texts(own, 2) == training


def test_own_texts_choose_fit_heal_and_judge(model, tmp_path, monkeypatch, capsys):
    """No other text is read; the card names the file; a changed file is another call."""
    file, out = tmp_path / "own.txt", tmp_path / "smaller"
    file.write_text("\n".join(LINES))
    monkeypatch.setattr(wheels, "path", lambda name: pytest.fail(name))
    settings = ["LAYERS=2", "START=1", "REPAIR=map", "HEAL=1", "LR=0.002", "RANK=2", "BATCH=2"]
    settings += ["SEQUENCE=16", "DTYPE=float32", f"TEXTS={file}", f"MODEL={model}", f"OUT={out}"]
    assert make_in_process(*settings) == 0
    card = text(out / "README.md")
    assert storage.digest(file) in card
    assert "1 steps of 2 × 16 tokens" in card
    assert "rank 2" in card
    assert "0.002 (as asked" in card
    file.write_text("\n".join(LINES[1:]))
    assert make_in_process(*settings) == 2
    assert "not of this call" in capsys.readouterr().err


def test_a_plan_comes_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loading, "load", None)
    words = ["PLAN=1", "MODEL=mistral-7b", f"OUT={tmp_path / 'out'}", "LAYERS=8", "CARD=t4"]
    assert make_in_process(*words, "REPAIR=map") == 0
    *steps, whole = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in steps] == ["choice", "scores", "map"]
    assert make_in_process(*words, "HEAL=100", "NF4=1") == 0
    packed = capsys.readouterr().out.splitlines()[-1]
    needed = [float(re.search(r"and (.*) GB on t4", total)[1]) for total in (whole, packed)]
    assert needed[1] < needed[0] / 2
    assert not list(tmp_path.iterdir())


# ---- interrupted calls ---------------------------------------------------------------------


def measured_only(record: dict) -> dict:
    """A record without its times."""
    kept = json.loads(json.dumps(record))
    for times in ("before", "after"):
        del kept[times]["speed"]
    del kept["minutes"], kept["map"]["seconds"]
    return kept


@pytest.mark.parametrize("place", ["mapped", 2, "save"])
def test_killed_and_resumed_is_undisturbed(healed, model, tmp_path, monkeypatch, place):
    """The weights byte for byte, and all of the record but times; nothing half-written stays."""
    call, out = options(model, **ALL), tmp_path / "smaller"
    step = prune._step

    def stop(*args, **kwargs):
        raise Killed

    def named(folder, name, run):
        return step(folder, name, stop if name == place else run)

    with monkeypatch.context() as patch:
        patch.setattr(prune, "_step", named)
        if place == "save":
            patch.setattr(pruning, "_check_saved", stop)
        killed = killed_at(place) if place == 2 else pytest.raises(Killed)
        with killed:
            prune.prune(call, out)
    assert not out.exists()
    record = prune.prune(call, out)
    undisturbed, expected = healed
    assert measured_only(record) == measured_only(expected)
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert storage.digest(out / file) == storage.digest(undisturbed / file)


def test_a_rate_that_diverges_keeps_the_work(model, tmp_path, monkeypatch, capsys):
    """With a lower one, the block is not chosen again."""
    out = tmp_path / "smaller"
    command = [model, str(out), "--layers", "2", "--limit", "4", "--heal", "1", "--lr"]
    with monkeypatch.context() as patch:
        patch.setattr(prune, "DIVERGED", 0)
        assert prune.main([*command, "0.001"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()[-1:]
    assert "diverged: choose a lower LR" in sentence and not out.exists()
    monkeypatch.setattr(prune, "_choice", None)
    assert prune.main([*command, "0.0001"]) == 0
    assert len([*tmp_path.glob("smaller.work/*/healing")]) == 2
    assert prune.main([*command, "0.0001", "--dtype", "float32"]) == 2


# ---- bad input -----------------------------------------------------------------------------

BAD = {
    "nope out --layers 2": "Unknown model 'nope'",
    "tiny-random out": "either LAYERS",
    "tiny-random out --layers 8": "layers 0 to 7 .* at least one must stay",
    "tiny-random out --layers 2 --start 0 --repair map": "START must be at least 1",
    "tiny-random out --layers 2 --start 7": "layers 7 to 8 .* at least one must stay",
    "tiny-random out --layers 2 --texts nope.jsonl": "There is no file nope.jsonl of texts",
    "tiny-random out --layers 2 --texts empty.txt": "empty.txt has 0 different texts",
    "tiny-random out --layers 2 --tasks nope": "Unknown 'nope': choose among c4, arc_easy",
    "tiny-random out --layers 2 --by nope": "Unknown 'nope': choose among similarity, damage",
    "tiny-random out --layers 2 --nf4 1": "NF4=1 needs bitsandbytes: pip install bitsandbytes",
    "no/model out --layers 2": "no/model cannot be had from the hub .* give a local folder",
    "tiny-random out --layers 2 --source hub": "Could not load allenai/c4 .* needs no hub",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence(command, tmp_path, monkeypatch, capsys):
    """Before any weights are read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    (tmp_path / "empty.txt").write_text("\n \n")
    assert prune.main(command.split()) == 2
    *_, sentence = capsys.readouterr().err.splitlines()
    assert re.search(BAD[command], sentence)
    assert [file.name for file in tmp_path.iterdir()] == ["empty.txt"]


# ---- architectures, and what is around a checkpoint ----------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_everything_beside_the_weights_follows(name, tmp_path):
    """Types of layers, tied weights, generation configuration, tokenizer."""
    whole = tiny(name)
    whole.config.tie_word_embeddings = True
    whole.tie_weights()
    whole.generation_config = GenerationConfig(eos_token_id=[2, 7])
    base, out = str(stored(whole, tmp_path / "base")), tmp_path / "smaller"
    assert prune.main([base, str(out), "--layers", "2", "--limit", "4", "--start", "2"]) == 0
    config = AutoConfig.from_pretrained(out)
    assert config.num_hidden_layers == LAYERS - 2
    types = getattr(AutoConfig.from_pretrained(base), "layer_types", None)
    if types:
        assert config.layer_types == types[:2] + types[4:]
    smaller = AutoModelForCausalLM.from_pretrained(out)
    assert smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight
    assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 7]
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (base, out))
    assert after("abc").input_ids == before("abc").input_ids


def test_merged_in_fp32_and_rounded_once(tmp_path):
    """Into weights in bf16, which are transposed in gpt2."""
    recipe = options("tiny-random", heal=1).recipe(1)
    half = tiny("gpt2").to(torch.bfloat16)
    exact = tiny("gpt2")
    exact.load_state_dict(half.state_dict())
    with lora.new_lora(exact, recipe) as wrapped, torch.no_grad():
        for path, parameter in wrapped.named_parameters():
            if "lora_B" in path:
                parameter.normal_(std=0.01)
        lora.save(wrapped, tmp_path / "adapter")
    assert lora.merge(exact, tmp_path / "adapter") == 0
    assert lora.merge(half, tmp_path / "adapter") > 0.01
    for path, parameter in half.named_parameters():
        assert torch.equal(parameter, exact.get_parameter(path).to(torch.bfloat16))


FRESH = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer

assert "lib" not in sys.modules
folder, *texts = json.load(sys.stdin)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(folder)
losses, tokens = 0.0, 0
for text in texts:
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=256).input_ids
    with torch.inference_mode():
        losses += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
    tokens += ids.shape[1] - 1
print(losses / tokens)
"""


@pytest.mark.real
def test_smollm2_in_a_process_of_its_own(tmp_path):
    """Cut and mapped, then scored by plain transformers: better than the plain cut."""
    out = tmp_path / "smaller"
    record = prune.prune(options("smollm2-135m", layers=9, repair="map", limit=16), out)
    given = json.dumps([str(out), *sets.c4("validation", "wheels", 16)])
    done = subprocess.run(
        [sys.executable, "-c", FRESH], cwd=tmp_path, input=given, capture_output=True, text=True
    )
    by_version = losses(record)
    assert float(done.stdout) == pytest.approx(by_version["mapped"], abs=0.02)
    assert by_version["whole"] < by_version["mapped"] < by_version["cut"] - 0.3
