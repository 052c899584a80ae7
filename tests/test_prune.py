"""`make prune`: a model's name in, a smaller checkpoint out."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, LAYERS, local_hub, stored, tiny
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from test_commands import make_in_process, text
from test_healing import Killed, killed_at
from transformers import AutoModelForCausalLM, AutoTokenizer

from lib import healing, paths, prune, pruning, storage
from lib.blocks import Block
from lib.data import sets
from lib.evaluation import Task
from lib.healing import lora, training
from lib.models import loading
from lib.models.decoder import decoder_layers
from lib.models.registry import Source
from lib.prune import Options
from lib.pruning import dropped
from lib.sweep import sweep

pytestmark = pytest.mark.usefixtures("few_articles")


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


@pytest.fixture(scope="module")
def healed(model, tmp_path_factory):
    """A cut that was healed without an interruption, and its record."""
    out = tmp_path_factory.mktemp("healed") / "smaller"
    return out, prune.prune(options(model, heal=3, tasks="arc_easy"), out)


def versions(record: dict) -> dict:
    return {row["version"]: row for row in record["versions"]}


@pytest.mark.parametrize("computed", ["float32", "bfloat16"])
def test_the_checkpoint_scores_what_its_card_says(model, tmp_path, monkeypatch, computed):
    """Read by plain transformers in the format of the base, and scored again.

    Healed as a large model is, and the card says so.
    """
    monkeypatch.setattr(loading, "default_dtype", lambda device: computed)
    monkeypatch.setattr(prune, "LARGE", 1)
    rates, heal = [], training.heal

    def noted(base, tokenizer, recipe, folder):
        rates.append(recipe.learning_rate)
        return heal(base, tokenizer, recipe, folder)

    monkeypatch.setattr(healing, "heal", noted)
    out = tmp_path / "smaller"
    record = prune.prune(options(model, heal=3, tasks="arc_easy"), out)
    record = json.loads(json.dumps(record))
    assert record["computed"] == computed
    model, tokenizer = loading.load(str(out), dtype=computed)
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert plain.config.num_hidden_layers == LAYERS - 2 and plain.dtype == torch.bfloat16
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter.to(model.dtype), model.get_parameter(name).cpu())
    assert AutoTokenizer.from_pretrained(out)("a").input_ids == tokenizer("a").input_ids
    row = versions(record)["healed"]
    assert row["parameters"] == sum(p.numel() for p in plain.parameters())
    card = text(out / "README.md")
    assert rates == [1e-4] and "learning rate 0.0001 (by size" in card
    for score in sweep(
        model, tokenizer, [], options(str(out), tasks="arc_easy").scored()
    ).itertuples():
        assert row["scores"][score.task] == [score.value, score.standard_error]
        assert f"{score.value:.3f} ± {score.standard_error:.3f}" in card
    lines = prune.table(record).splitlines()
    assert len(lines) == 6 and {line.count("|") for line in lines} == {7}
    assert prune.table(record) in card and json.loads(text(out / "prune.json")) == record


def test_the_table_has_the_whole_the_cut_and_the_healed(healed, model):
    record = healed[1]
    block, rows = Block(**record["block"]), versions(record)
    assert list(rows) == ["whole", "cut", "healed, not merged", "healed"]
    base, tokenizer = loading.load(model, dtype="float32")
    scores = sweep(base, tokenizer, [block], options(model).scored())
    for name, layers, score in zip(rows, (LAYERS, LAYERS - 2), scores.itertuples(), strict=False):
        assert rows[name]["layers"] == layers
        assert rows[name]["scores"]["c4"] == [score.value, score.standard_error]
    assert rows["healed"]["scores"]["c4"] != rows["cut"]["scores"]["c4"]
    assert len({row["parameters"] for row in record["versions"]}) == 2
    assert rows["whole"]["gb"] == pytest.approx(2e-9 * base.num_parameters())


@pytest.mark.parametrize(
    "name, parameters, rate, rank",
    [
        ("mistral-7b", 7 * 10**9, 3e-6, 4),
        ("mistralai/Mistral-7B-v0.1", 7 * 10**9, 3e-6, 4),
        ("smollm2-135m", 135 * 10**6, 1e-3, 8),
        ("some/model", 10**9 - 1, 1e-3, 8),
        ("some/model", 10**9, 1e-4, 8),
    ],
)
def test_a_model_is_healed_at_its_own_rate(name, parameters, rate, rank):
    """The paper's where it has one, else one by the model's size."""
    recipe = options(name).recipe(parameters)
    assert (recipe.learning_rate, recipe.rank) == (rate, rank)


KILLED = ("choice", "scores", "adapter", "merged", "save", 2)


@pytest.mark.parametrize("place", KILLED)
def test_killed_and_resumed_is_undisturbed(healed, model, tmp_path, monkeypatch, place):
    """Byte for byte, card and adapter too; the minutes are those of the steps that were run."""
    call, out = options(model, heal=3, tasks="arc_easy"), tmp_path / "smaller"
    step = prune._step

    def stop(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        if place == 2:
            with killed_at(place):
                prune.prune(call, out)
        else:
            if place == "save":
                patch.setattr(pruning, "_check_saved", stop)
            else:

                def named(work, name, run):
                    return step(work, name, stop if name == place else run)

                patch.setattr(prune, "_step", named)
            with pytest.raises(Killed):
                prune.prune(call, out)
    assert not out.exists() and not list(tmp_path.glob("*.part"))
    kept = {file: json.loads(text(file)) for file in (tmp_path / "smaller.work").glob("*.json")}
    for file, content in kept.items():
        file.write_text(json.dumps(content | {"seconds": 600}))
    prune.prune(call, out)
    assert storage.digest(out) == storage.digest(healed[0])
    adapters = [
        f"{folder}.work/healing/adapter/adapter_model.safetensors" for folder in (out, healed[0])
    ]
    assert storage.digest(paths.Path(adapters[0])) == storage.digest(paths.Path(adapters[1]))
    minutes = prune.minutes(out)
    assert list(minutes) == ["choice", "scores", "healed", "adapter", "merged"]
    for file in kept:
        assert minutes.get(file.stem, 10) == 10


SEALED = "smaller.work/healing/checkpoint-*/complete.json"


@pytest.mark.parametrize("place", [SEALED, "smaller.part"])
def test_kill_minus_nine(healed, model, tmp_path, place):
    """In the middle of the healing, and while the checkpoint is being written."""
    code = (
        "import sys\n"
        "from lib import prune\n"
        "from lib.data import sets\n"
        "from lib.models import loading\n"
        f"sets._articles = lambda: {sets._articles()!r}\n"
        "loading.default_dtype = lambda device: 'float32'\n"
        "prune.main(sys.argv[1:])"
    )
    out = tmp_path / "smaller"
    words = [model, str(out), "--layers", "2", "--limit", "4", "--heal", "3", "--tasks", "arc_easy"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], env=environment, stdout=subprocess.DEVNULL
    )
    while not list(tmp_path.glob(place)):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert list(tmp_path.glob(place)) and not out.exists()
    prune.prune(options(model, heal=3, tasks="arc_easy"), out)
    assert storage.digest(out) == storage.digest(healed[0])
    assert not (tmp_path / "smaller.part").exists()


def test_a_second_call_returns_at_once(healed, model, monkeypatch, capsys):
    out, record = healed
    monkeypatch.setattr(loading, "load", None)
    again = [model, str(out), "--layers", "2", "--limit", "4", "--heal", "3", "--tasks", "arc_easy"]
    assert prune.main(again) == 0
    printed = capsys.readouterr().out
    assert prune.table(record) in printed and "Minutes: choice 0." in printed
    assert prune.main([*again, "--by", "damage"]) == 2
    assert f"{out} exists" in capsys.readouterr().err


def test_damage_takes_the_least_loss(model, tmp_path):
    record = prune.prune(options(model, by="damage"), tmp_path / "smaller")
    base, tokenizer = loading.load(model, dtype="float32")
    texts = sets.c4("train", "wheels", 4)
    task = Task("c4", tuple({"text": text, "max_tokens": prune.MAX_TOKENS} for text in texts))
    losses = []
    for start in range(LAYERS - 1):
        with dropped(base, Block(start, 2)):
            losses.append(sweep(base, tokenizer, [], [task]).value[0])
    assert record["block"] == {"start": int(np.argmin(losses)), "size": 2}
    assert record["choice"]["least"] == pytest.approx(min(losses), abs=1e-3)
    assert [row["version"] for row in record["versions"]] == ["whole", "cut"]


@settings(max_examples=25, deadline=None)
@given(share=st.floats(-0.5, 1.5), name=st.sampled_from(["llama", "gpt2", "gemma3", "lfm2"]))
def test_the_fewest_layers_that_fit(tmp_path_factory, share, name):
    """After them the weights fit, whichever they are; after one less some block would not do."""
    config = ARCHITECTURES[name]()
    whole = tiny(name)
    layers = [sum(p.numel() for p in layer.parameters()) for layer in decoder_layers(whole)]
    total = whole.num_parameters()
    gb = (total - share * sum(layers)) * 2e-9
    call = SimpleNamespace(layers=None, gb=gb, heal=0)
    source = Source("folder", "", "")
    checkpoint = SimpleNamespace(source=source, config=config, num_layers=LAYERS)
    out = tmp_path_factory.getbasetemp() / "smaller"
    try:
        size = prune._checked_size(call, checkpoint, "bfloat16", out)
    except ValueError as error:
        if "already" in str(error):
            assert total * 2e-9 <= gb
        else:
            assert "dropping layers cannot make that" in str(error)
            assert (total - (LAYERS - 1) * min(layers)) * 2e-9 > gb
        return
    assert (total - size * min(layers)) * 2e-9 <= gb * (1 + 1e-9)
    assert (total - (size - 1) * min(layers)) * 2e-9 > gb * (1 - 1e-9)


BAD = {
    "nope out --layers 2": "Unknown model 'nope'",
    "nope.gguf out --layers 2": "no file nope.gguf",
    "tiny-random out": "either LAYERS",
    "tiny-random out --layers 2 --gb 1": "either LAYERS",
    "tiny-random out --gb -1": "GB must be at least 0, not -1",
    "tiny-random out --layers 0": "LAYERS must be at least 1, not 0",
    "tiny-random out --layers 8": "layers 0 to 7 .* at least one must stay",
    "tiny-random out --layers 2 --heal -1": "HEAL must be at least 0",
    "tiny-random out --layers 2 --limit 1": "LIMIT must be at least 2",
    "tiny-random out --layers 2 --by luck": "Unknown 'luck': choose among similarity, damage",
    "tiny-random out --layers 2 --tasks arc_hard": "Unknown 'arc_hard': choose among c4, arc_easy",
    "tiny-random out --layers 2 --dtype int3": "Unknown dtype 'int3'",
}
NO_TORCH = """
import sys
from lib import prune
assert prune.main(sys.argv[1:]) == 2
assert not {"torch", "transformers"} & sys.modules.keys()
"""


@pytest.mark.parametrize("command", BAD)
def test_bad_input_is_one_sentence(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert prune.main(command.split()) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert re.search(BAD[command], sentence)
    assert not list(tmp_path.iterdir())


def test_bad_input_loads_no_torch(tmp_path):
    for command in (
        "nope out --layers 2",
        "tiny-random out --layers 8",
        "tiny-random . --layers 1",
    ):
        words = [sys.executable, "-c", NO_TORCH, *command.split()]
        subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def hub(model, tmp_path, monkeypatch):
    """A hub with `some/model`, and an empty cache; the files that it was made to send."""
    served = shutil.copytree(model, tmp_path / "served")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with local_hub("some/model", served) as (address, sent):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield SimpleNamespace(folder=served, sent=sent)


def test_what_cannot_be_is_known_before_weights_are_downloaded(hub, tmp_path, monkeypatch, capsys):
    out = tmp_path / "smaller"
    command = ["some/model", str(out), "--limit", "4", "--layers"]
    weights = (hub.folder / "model.safetensors").stat().st_size
    assert prune.main([*command, str(LAYERS)]) == 2
    assert f"layers 0 to {LAYERS - 1}" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=weights))
        assert prune.main([*command, "2"]) == 2
        assert f" on the disk of {tmp_path / 'cache'}, where" in capsys.readouterr().err
    assert set(hub.sent) == {"config.json"} and not list(tmp_path.glob("smaller*"))
    assert prune.main([*command, "2"]) == 0
    assert "model.safetensors" in hub.sent
    assert AutoModelForCausalLM.from_pretrained(out).config.num_hidden_layers == LAYERS - 2


@pytest.mark.parametrize("gb, problem", [("1", "GB already"), ("1e-06", "cannot make that 1e-06")])
def test_what_no_number_of_layers_makes_fit(model, tmp_path, capsys, gb, problem):
    assert prune.main([model, str(tmp_path / "out"), "--gb", gb]) == 2
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_arguments_there_is_an_example(capsys):
    assert make_in_process("prune") == 2
    assert "make prune MODEL=smollm2-135m LAYERS=6 OUT=" in capsys.readouterr().err


def test_a_folder_without_tokenizer(model, tmp_path, monkeypatch, capsys):
    """Is known before its weights are read; the call that is right then is not refused."""
    base = shutil.copytree(model, tmp_path / "base")
    (base / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    command = [str(base), str(tmp_path / "smaller"), "--layers", "2", "--limit", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_assembled", None)
        assert prune.main(command) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"{base} has no tokenizer" in sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "tokenizer.json"]
    (tmp_path / "tokenizer.json").rename(base / "tokenizer.json")
    assert prune.main(command) == 0


def test_inside_the_folder_of_the_model(model, capsys):
    """Its very first file would make the model another one."""
    assert prune.main([model, f"{model}/sub/smaller", "--layers", "2"]) == 2
    assert "lies in the folder of MODEL" in capsys.readouterr().err
    assert not os.path.exists(f"{model}/sub")


def test_a_folder_of_someone_else_stays(model, tmp_path, capsys):
    (tmp_path / "letter").write_text("dear")
    assert prune.main([model, str(tmp_path), "--layers", "2"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["letter"]


def test_a_full_disk(model, tmp_path, monkeypatch, capsys):
    """Known before anything is computed; or else nothing is half-written, and a repeat goes on."""
    out = tmp_path / "smaller"
    command = [model, str(out), "--layers", "2", "--limit", "4"]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=10_000))
        assert prune.main(command) == 2
        assert f" GB on the disk of {tmp_path}, where 1e-05 GB are free" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:

        def full(self, folder, **kwargs):
            raise OSError("No space left on device")

        patch.setattr("transformers.PreTrainedTokenizerBase.save_pretrained", full)
        assert prune.main(command) == 2
        assert capsys.readouterr().err.endswith(
            "smaller could not be written: No space left on device\n"
        )
    assert [folder.name for folder in tmp_path.iterdir()] == ["smaller.work"]
    assert prune.main(command) == 0
    assert prune.main([*command[:3], "3"]) == 2


def test_a_work_folder_of_another_call(model, tmp_path, capsys):
    (tmp_path / "smaller.work").mkdir()
    (tmp_path / "smaller.work" / "call.json").write_text('{"seconds": 0, "result": "another"}')
    assert prune.main([model, str(tmp_path / "smaller"), "--layers", "2"]) == 2
    assert "smaller.work is of another call" in capsys.readouterr().err


@pytest.mark.parametrize("name, layers_are_alike", [("llama", True), ("gemma3", False)])
def test_mergekit_where_it_can_read_the_base(tmp_path, name, layers_are_alike):
    base = str(stored(tiny(name), tmp_path / "base"))
    out = tmp_path / "smaller"
    block = prune.prune(options(base, dtype="float32"), out)["block"]
    card = text(out / "README.md")
    assert ("merge_method: passthrough" in card) == layers_are_alike
    slices = [(0, block["start"]), (block["start"] + 2, LAYERS)]
    for start, stop in slices:
        line = f"- sources: [{{model: {base}, layer_range: [{start}, {stop}]}}]"
        assert (line in card) == (layers_are_alike and start < stop)


def test_the_random_model_is_none_that_mergekit_reads(tmp_path):
    prune.prune(options("tiny-random"), tmp_path / "smaller")
    assert "mergekit" not in text(tmp_path / "smaller" / "README.md")


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


def test_make_prune(model, tmp_path, capsys):
    out = tmp_path / "smaller"
    variables = (
        "LAYERS=2",
        "HEAL=1",
        "BY=damage",
        "LIMIT=4",
        "DTYPE=float32",
        "TASKS=arc_easy hellaswag",
    )
    assert make_in_process("prune", f"MODEL={model}", f"OUT={out}", *variables) == 0
    printed = capsys.readouterr().out
    assert "| healed | 4 |" in printed and "arc_easy | hellaswag |" in printed
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32


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
prompt = tokenizer("The capital of France is", return_tensors="pt")
written = model.generate(**prompt, max_new_tokens=5, do_sample=False)
print(json.dumps([losses / tokens, tokenizer.decode(written[0])]))
"""


@pytest.mark.real
def test_smollm2_in_a_process_of_its_own(tmp_path):
    """Cut and healed, then read and scored by plain transformers."""
    out = tmp_path / "smaller"
    record = prune.prune(options("smollm2-135m", layers=6, heal=4, limit=8), out)
    given = json.dumps([str(out), *sets.c4("validation", "wheels", 8)])
    done = subprocess.run(
        [sys.executable, "-c", FRESH], cwd=tmp_path, input=given, capture_output=True, text=True
    )
    loss, written = json.loads(done.stdout.splitlines()[-1])
    rows = versions(record)
    assert loss == pytest.approx(rows["healed"]["scores"]["c4"][0], abs=0.02)
    assert rows["healed"]["scores"]["c4"] != rows["cut"]["scores"]["c4"]
    assert len(written) > len("The capital of France is")
