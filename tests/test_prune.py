"""`make prune`: a model's name in, a smaller checkpoint out."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import datasets
import pandas as pd
import pytest
import torch
from conftest import LAYERS, local_hub, stored, tiny
from huggingface_hub import constants
from test_commands import start, text
from test_healing import Killed, killed_at
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
from replication.plan import get_card
from replication.plan_prune import works

pytestmark = pytest.mark.usefixtures("few_articles")


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
WORDS = "--layers 2 --limit 4 --repair map --heal 3 --tasks arc_easy".split()
VERSIONS = ["whole", "cut", "mapped", "healed, not merged", "healed"]


@pytest.fixture(scope="module")
def healed(model, tmp_path_factory):
    """A cut that was mapped and healed without an interruption, and its record."""
    out = tmp_path_factory.mktemp("healed") / "smaller"
    return out, prune.prune(options(model, **ALL), out)


def losses(record: dict) -> dict:
    return {row["version"]: row["scores"]["c4"][0] for row in record["versions"]}


def check(out, record: dict, computed: str) -> None:
    """Read a checkpoint by plain transformers, score it again, and compare it with its card."""
    assert record["computed"] == computed
    model, tokenizer = loading.load(str(out), dtype=computed)
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.config.num_hidden_layers == LAYERS - 2 and plain.dtype == torch.bfloat16
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.to(model.dtype), model.get_parameter(name).cpu())
    row, card = record["versions"][-1], text(out / "README.md")
    assert row["parameters"] == sum(p.numel() for p in plain.parameters())
    for score in sweep(
        model, tokenizer, [], options(str(out), tasks="arc_easy").scored()
    ).itertuples():
        assert row["scores"][score.task] == pytest.approx((score.value, score.standard_error))
        assert f"{score.value:.3f} ± {score.standard_error:.3f}" in card
    ids = AutoTokenizer.from_pretrained(out)(prune.PROMPTS[0], return_tensors="pt").input_ids
    end = {"min_new_tokens": prune.WRITTEN, "max_new_tokens": prune.WRITTEN}
    end["attention_mask"] = torch.ones_like(ids)
    written = model.generate(ids.to(model.device), do_sample=False, **end)[0, ids.shape[1] :]
    assert record["after"]["texts"][0] == tokenizer.decode(written, skip_special_tokens=True)
    assert f"- after: {' '.join(record['after']['texts'][0].split())}\n" in card
    assert min(record[when]["speed"] for when in ("before", "after")) > 0
    assert prune.table(record) in card and (out / "card.png").stat().st_size > 5000


def test_the_checkpoint_scores_what_its_card_says(healed, model, tmp_path, monkeypatch):
    """Where it is computed in another format than that of the weights, and in the same."""
    check(*healed, "float32")
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
    assert [row["version"] for row in rows] == VERSIONS and block.start > 0
    assert [row["layers"] for row in rows] == [LAYERS] + [LAYERS - 2] * 4
    base, tokenizer = loading.load(model, dtype="float32")
    tasks = options(model).scored()
    whole, cut = sweep(base, tokenizer, [block], tasks).value
    distances = block_distances(base, batches(sets.c4("train", "wheels", 4), tokenizer)).row(2)[1:]
    choice = [record["choice"][name] for name in ("value", "next")]
    assert choice == pytest.approx(sorted(distances)[:2])
    texts = batches(sets.healing_texts("wheels", 4)[:4], tokenizer)
    change = linear.fitted(base, block, ["folded"], texts)["folded"][0].change
    linear.fold(base, block, change, torch.bfloat16)
    with dropped(base, block):
        (mapped,) = sweep(base, tokenizer, [], tasks).value
    by_version = losses(record)
    assert list(by_version.values())[:3] == pytest.approx([whole, cut, mapped], abs=1e-5)
    assert len(set(by_version.values())) == len(VERSIONS)
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
    recipe = options(name, sequence=32, batch=2, **given).recipe(parameters)
    assert (recipe.learning_rate, recipe.rank) == (rate, rank)
    assert (recipe.max_tokens, recipe.batch) == (32, 2)


# ---- which block ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["damage", "arc_easy"])
def test_the_best_block_is_chosen_by_what_is_not_scored(model, by):
    """As by dropping each block in turn. The first one has no layer before it for a map."""
    call = options(model, by=by, limit=8, repair="map")
    base, tokenizer = loading.load(model, dtype="float32")
    choice = prune._choice(call, base, tokenizer, 2)
    values = []
    for first in range(1, LAYERS - 1):
        with dropped(base, Block(first, 2)):
            values.append(sweep(base, tokenizer, [], [call.choosing()]).value[0])
    best, second = sorted(values, reverse=by != "damage")[:2]
    assert [choice["value"], choice["next"]] == pytest.approx([best, second], abs=1e-3)
    assert values[choice["start"] - 1] == pytest.approx(best, abs=1e-3)
    assert values[choice["runner_up"] - 1] == pytest.approx(second, abs=1e-3)


@pytest.mark.parametrize("task", prune.CHOOSING)
def test_questions_that_choose_are_not_scored(task):
    call = options("tiny-random", by=task, limit=2 if task == "mmlu" else 10)
    (scored,) = (each for each in call.scored() if each.name == task)
    choosing = call.choosing()
    assert len(choosing.examples) == len(scored.examples) and choosing.name == task
    assert not {e["prompt"] for e in choosing.examples} & {e["prompt"] for e in scored.examples}


def test_texts_that_choose_are_not_scored():
    chosen = {e["text"] for e in options("tiny-random", by="damage").choosing().examples}
    assert chosen == {*sets.c4("train", "wheels", 4)}


def test_a_block_by_its_place():
    call, model = options("tiny-random"), tiny("llama")
    for changes, first in (({"start": 1}, 1), ({"by": "simple"}, 3), ({"by": "exit"}, 4)):
        call = options("tiny-random", **changes)
        assert prune._choice(call, model, None, 2) == {"start": first}


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


@pytest.fixture(params=[".jsonl", ".parquet:own", ".txt"])
def own(request, tmp_path):
    """A file with 20 texts, one of them twice, and empty ones."""
    suffix, _, column = request.param.partition(":")
    file, texts = tmp_path / f"own{suffix}", [*LINES, LINES[3], "", " "]
    table = pd.DataFrame({column or "text": texts})
    if suffix == ".txt":
        file.write_text("\n".join(texts))
    else:
        table.to_parquet(file) if column else table.to_json(file, orient="records", lines=True)
    return f"{file}:{column}" if column else str(file)


def test_own_texts_judge_or_train(own):
    judging, training = (sets.c4(split, own, None) for split in ("validation", "train"))
    assert sorted(judging + training) == sorted(LINES) and len(judging) == 3
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
    assert storage.digest(file) in card and "chosen by | name (START=1)" in card
    assert "1 steps of 2 × 16 tokens" in card and "rank 2" in card and "0.002 (as asked" in card
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32
    assert "text" in json.loads(text(out / "prune.json"))["call"]
    file.write_text("\n".join(LINES[1:]))
    assert make_in_process(*settings) == 2
    assert "not of this call" in capsys.readouterr().err


def test_a_plan_comes_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    """A block that is named is not chosen; half of the steps of healing take half of the time."""
    monkeypatch.setattr(loading, "load", None)
    words = ["PLAN=1", "MODEL=mistral-7b", f"OUT={tmp_path / 'out'}", "LAYERS=8", "CARD=t4"]
    assert make_in_process(*words, "REPAIR=map") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == ["choice", "scores", "map"]
    assert re.fullmatch(r"In all [\d.]+ minutes and 1\d\.\d GB on t4, .* 14.5 GB.", lines[-1])
    card = get_card("t4")
    long, short = (
        works(options("mistral-7b", layers=8, heal=heal, start=20), card) for heal in (200, 100)
    )
    assert [work.kind for work in long] == ["scores", "healing"]
    assert card.seconds(long[-1]) == pytest.approx(2 * card.seconds(short[-1]))
    assert make_in_process(*words[:-1], "CARD=abacus") == 2
    assert not list(tmp_path.iterdir())


# ---- interrupted calls ---------------------------------------------------------------------


def measured_only(record: dict) -> dict:
    """A record without its times."""
    kept = json.loads(json.dumps(record))
    for times in ("before", "after"):
        del kept[times]["speed"]
    del kept["minutes"], kept["map"]["seconds"]
    return kept


@pytest.mark.parametrize("place", ["scores", "mapped", 2, "save"])
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
        if place == 2:
            with killed_at(place):
                prune.prune(call, out)
        else:
            with pytest.raises(Killed):
                prune.prune(call, out)
    assert not out.exists() and not list(tmp_path.glob("*.part"))
    if place == "save":  # a lack of power leaves what no handler takes away
        (tmp_path / "smaller.part").mkdir()
        (tmp_path / "smaller.part" / "letter").write_text("dear")
    record = prune.prune(call, out)
    assert measured_only(record) == measured_only(healed[1])
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert storage.digest(out / file) == storage.digest(healed[0] / file)
    assert sorted(f.name for f in out.iterdir()) == sorted(f.name for f in healed[0].iterdir())


def test_a_second_call_returns_at_once(healed, model, monkeypatch, capsys):
    out, record = healed
    monkeypatch.setattr(loading, "load", None)
    assert prune.main([model, str(out), *WORDS]) == 0
    assert prune.table(record) in capsys.readouterr().out
    assert prune.main([model, str(out), *WORDS, "--by", "damage"]) == 2
    assert f"{out} exists" in capsys.readouterr().err


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
    "nope.gguf out --layers 2": "no file nope.gguf",
    "tiny-random out": "either LAYERS",
    "tiny-random out --layers 2 --gb 1": "either LAYERS",
    "tiny-random out --layers 0": "LAYERS must be at least 1, not 0",
    "tiny-random out --layers 8": "layers 0 to 7 .* at least one must stay",
    "tiny-random out --layers 2 --start 7": "layers 7 to 8 of a model with 8 layers",
    "tiny-random out --layers 2 --start 0 --repair map": "START must be at least 1",
    "tiny-random out --layers 2 --repair glue": "Unknown 'glue': choose among map",
    "tiny-random out --layers 2 --by luck": "Unknown 'luck': choose among similarity, damage",
    "tiny-random out --layers 2 --tasks arc_hard": "Unknown 'arc_hard': choose among c4, arc_easy",
    "tiny-random out --layers 2 --dtype int3": "Unknown dtype 'int3'",
    "tiny-random out --layers 2 --texts nope.jsonl": "There is no file nope.jsonl of texts",
    "tiny-random out --layers 2 --texts few.txt": "few.txt has 1 different texts",
    "tiny-random out --layers 2 --texts few.csv:b": "few.csv has no texts in a column 'b'",
    "base out --layers 2": "base has no tokenizer",
    "base base/sub --layers 2": "lies in the folder of MODEL",
    "base out --gb 1": "GB already",
    "base out --gb 1e-06": "cannot make that 1e-06",
    "base few.txt --layers 2": "few.txt exists",
}


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence(command, model, tmp_path, monkeypatch, capsys):
    """Before any weights are read."""
    base = shutil.copytree(model, tmp_path / "base")
    (base / "tokenizer.json").unlink()
    for name in ("few.txt", "few.csv"):
        (tmp_path / name).write_text("text\n")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "_assembled", None)
    datasets.disable_progress_bars()
    assert prune.main(command.split()) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert re.search(BAD[command], sentence)
    assert sorted(tmp_path.rglob("*")) == before


def test_without_arguments_there_is_an_example(capsys):
    assert make_in_process() == 2
    assert "make prune MODEL=smollm2-135m LAYERS=6 REPAIR=map" in capsys.readouterr().err


def test_what_cannot_be_is_known_before_weights_are_downloaded(
    model, tmp_path, monkeypatch, capsys
):
    """Of a hub with `some/model`, and an empty cache."""
    served, out = shutil.copytree(model, tmp_path / "served"), tmp_path / "smaller"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    command = ["some/model", str(out), "--limit", "4", "--layers"]
    weights = (served / "model.safetensors").stat().st_size
    with local_hub("some/model", served) as (address, sent):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        assert prune.main([*command, str(LAYERS)]) == 2
        assert f"layers 0 to {LAYERS - 1}" in capsys.readouterr().err
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=weights))
            assert prune.main([*command, "2"]) == 2
            assert f" on the disk of {tmp_path / 'cache'}, where" in capsys.readouterr().err
        assert set(sent) == {"config.json"} and not list(tmp_path.glob("smaller*"))
        assert prune.main([*command, "2"]) == 0
        assert "model.safetensors" in sent


def test_a_full_disk(model, tmp_path, monkeypatch, capsys):
    """Nothing is half-written, and a repeat goes on."""
    command = [model, str(tmp_path / "smaller"), "--layers", "2", "--limit", "4"]

    def full(self, folder, **kwargs):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full)
        assert prune.main(command) == 2
    assert capsys.readouterr().err.endswith("be written: No space left on device\n")
    assert [folder.name for folder in tmp_path.iterdir()] == ["smaller.work"]
    assert prune.main(command) == 0


# ---- architectures, and what is around a checkpoint ----------------------------------------


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gemma3", "phi3"])
def test_everything_beside_the_weights_follows(name, tmp_path, capsys):
    """Types of layers, tied weights, generation configuration, tokenizer; mergekit where it can.

    A norm after Gemma's FFN keeps a map from being folded.
    """
    whole = tiny(name)
    whole.config.tie_word_embeddings = True
    whole.tie_weights()
    whole.generation_config = GenerationConfig(eos_token_id=[2, 7], repetition_penalty=1.5)
    base, out = str(stored(whole, tmp_path / "base")), tmp_path / "smaller"
    words = [base, str(out), "--layers", "2", "--limit", "4", "--start", "2"]
    folds = name != "gemma3"
    if not folds:
        assert prune.main([*words, "--repair", "map"]) == 2
        assert "does not add what its FFN's last projection gives" in capsys.readouterr().err
        assert not (tmp_path / "smaller.work").exists()
    assert prune.main([*words, *["--repair", "map"] * folds]) == 0
    config, before = AutoConfig.from_pretrained(out), AutoConfig.from_pretrained(base)
    assert config.num_hidden_layers == LAYERS - 2 and config.tie_word_embeddings
    types = list(getattr(before, "layer_types", None) or [None] * LAYERS)
    assert list(getattr(config, "layer_types", None) or [None] * 4) == types[:2] + types[4:]
    smaller = AutoModelForCausalLM.from_pretrained(out)
    assert smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight
    generation = GenerationConfig.from_pretrained(out)
    assert (generation.eos_token_id, generation.repetition_penalty) == ([2, 7], 1.5)
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (base, out)]
    assert len({str(each("abc").input_ids) for each in tokenizers}) == 1
    mergekit = f"- sources: [{{model: {base}, layer_range: [4, {LAYERS}]}}]"
    assert (mergekit in text(out / "README.md")) == (len(set(types)) == 1)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_merged_in_fp32_and_rounded_once(tmp_path, name, ids):
    """gpt2's weights are transposed. In fp32 the logits are those of the adapter beside."""
    model = tiny(name)
    recipe = options("tiny-random", heal=1).recipe(1)
    with lora.new_lora(model, recipe) as wrapped, torch.no_grad():
        for path, parameter in wrapped.named_parameters():
            if "lora_B" in path:
                parameter.normal_(std=0.01)
        lora.save(wrapped, tmp_path / "adapter")
    with lora.load_lora(model, tmp_path / "adapter"), torch.inference_mode():
        beside = model(ids).logits
    half = tiny(name).to(torch.bfloat16)
    base = {path: p.float() for path, p in half.named_parameters()}
    exact = tiny(name)
    exact.load_state_dict(half.state_dict())
    assert lora.merge(exact, tmp_path / "adapter") == 0
    rounding = lora.merge(half, tmp_path / "adapter")
    errors = updates = 0.0
    for path, parameter in half.named_parameters():
        merged = exact.get_parameter(path)
        assert torch.equal(parameter, merged.to(torch.bfloat16))
        errors += (parameter - merged).square().sum().item()
        updates += (merged - base[path]).square().sum().item()
    assert rounding == pytest.approx((errors / updates) ** 0.5, rel=1e-3) and rounding > 0.01
    assert lora.merge(model, tmp_path / "adapter") == 0
    with torch.inference_mode():
        torch.testing.assert_close(model(ids).logits, beside, atol=1e-4, rtol=1e-4)


def test_the_readmes_example_runs(tmp_path, monkeypatch):
    """On a tiny model, with a short healing."""
    example = text(paths.ROOT / "README.md").partition("```python\n")[2].partition("```")[0]
    name = str(stored(tiny("qwen3"), tmp_path / "model"))
    for words, small in {"path/to/model": name, "size=6": "size=2", "steps=100": "steps=1"}.items():
        assert example.count(words) == 1
        example = example.replace(words, small)
    monkeypatch.chdir(tmp_path)
    exec(example, {})
    assert AutoModelForCausalLM.from_pretrained("smaller").config.num_hidden_layers == LAYERS - 2


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
