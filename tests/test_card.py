"""The card of a made-up record, line for line; and what lies beside a base model."""

import re
from pathlib import Path

import pytest
import yaml
from transformers import AutoConfig

from lib.prune import Options, card

WHOLE = {"version": "whole", "layers": 8, "parameters": 1_000_000_000, "computed": "bfloat16"}
RECORD = {
    "base": "owner/name",
    "revision": "c0ffee",
    "files": {},
    "dtype": "float32",
    "block": {"start": 2, "size": 2},
    "n": {"c4": 32, "mmlu": 100, "c4_1024": 8},
    "map": {"seconds": 90, "error": 0.25, "fit_texts": 96, "judging_texts": 8},
    "healing": {
        "steps": 20,
        "batch": 1,
        "max_tokens": 256,
        "rank": 8,
        "all_linear": True,
        "learning_rate": 0.003,
        "real_tokens": 5120,
        "targets": 4000,
        "held_out": [[0, 3.9], [10, 3.6], [20, 3.5]],
        "held_out_texts": 6,
        "epochs": 8.8,
    },
    "is_text_only": False,
    "keeps_config": True,
    "moved": ["layer_types"],
    "unasked": {},
    "versions": [
        WHOLE | {"scores": {"c4": [3, 0.1], "mmlu": [0.6, 0.04], "c4_1024": [2.8, 0.2]}},
        {
            "version": "saved",
            "layers": 6,
            "parameters": 850_000_000,
            "scores": {"c4": [3.4, 0.12], "mmlu": [0.5, 0.05], "c4_1024": [3.4, 0.21]},
            "to_whole": {"c4": [0.4, 0.05], "mmlu": [-0.1, 0.03], "c4_1024": [0.6, 0.1]},
        },
    ],
    "command": "make prune MODEL=owner/name",
    "software": {"torch": "2.13.0", "transformers": "5.24.0", "deeper-layers": "abc1234"},
}
KINDS = ["sliding_attention"] * 5 + ["full_attention"]  # left of twice three and one
BASE = card.Base("name", {"license": "other", "license_name": "own"}, {}, ["A file is damaged."])


def rendered(options: dict, family: str = "cohere2", beside=BASE, **changes) -> str:
    config = AutoConfig.for_model(family, num_hidden_layers=6, **changes.pop("config", {}))
    return card.render(RECORD | changes, Options("owner/name", 2, **options), beside, config)


def test_a_card_line_for_line():
    """The expected lines were written by hand."""
    made = rendered({"by": "map", "repair": "map", "heal": 5}, config={"layer_types": KINDS})
    expected = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    assert made.partition("\n```python")[0].splitlines() == expected.splitlines()


CHATS = {"reads_chats": True}
FAR = {"n": {"c4": 32, "c4_1024": 4, "c4_4096": 3}}
UNLIKE = {"moved": [], "files": {"config.json": "0"}, "base": None, "dtype": "bfloat16"}


@pytest.mark.parametrize(
    "options, changes, line",
    [
        ({}, UNLIKE, "| SHA-256 of its files | c0ffee, of the lines that `sha256sum` prints of"),
        ({}, UNLIKE, "| whole | 8 | 1,000,000,000 | 2 |"),
        ({}, UNLIKE, "name it in the first lines, as `base_model:`."),
        ({"start": 2}, {}, "| chosen | by hand |"),
        ({}, {}, "| chosen | since they turn the hidden state least"),
        ({"by": "loss"}, {}, "| chosen | since dropping them leaves the least loss on C4"),
        ({}, {"n": {"c4": 32}}, "Beyond 256 tokens of a text it was not measured: too few"),
        ({}, FAR, "to 4,096: of tokens 1,025 to 4,096 in 3 texts. GB"),
        ({}, FAR, "Beyond 4,096 tokens of a text it was not measured."),
        ({"steps": 5}, {}, "- pruned\n- healed\n"),
        ({}, {"family": "olmo3"}, "Transformers 4.57 reads the whole model otherwise (tried with"),
        ({"heal": 5}, CHATS, "5,120 tokens (C4, of which 4,000 of answers count, its texts"),
        (
            {"heal": 5},
            CHATS,
            "It was trained on the answers in chats; what it writes itself",
        ),
        ({"heal": 5}, CHATS, "per token, over the answers in 32 chats (C4; lower is better)"),
        (
            {"heal": 5},
            {"healing": RECORD["healing"] | {"epochs": 0.4}},
            "tokens (C4, no text twice)",
        ),
    ],
)
def test_a_card_of_another_call(options, changes, line):
    assert line in rendered(options, **changes)


@pytest.mark.parametrize(
    "whole, saved, sentence",
    [
        (
            (0.6, 0.04),
            (-0.05, 0.03),
            "do not show that answers by letter are lost: the change is -0.05",
        ),
        (
            (0.6, 0.04),
            (0.1, 0.03),
            "do not show that answers by letter are lost: the change is +0.10",
        ),
    ],
)
def test_the_card_says_whether_letters_are_lost(whole, saved, sentence):
    first, last = RECORD["versions"]
    first = first | {"scores": first["scores"] | {"mmlu": whole}}
    last = last | {"to_whole": last["to_whole"] | {"mmlu": saved}}
    assert sentence in rendered({}, versions=[first, last])


def test_the_card_says_what_the_cut_was_not_asked_and_why():
    mmlu = {"label": "MMLU by letter", "value": 0.29, "standard_error": 0.046, "n": 99}
    versions = [
        version | {"scores": {"c4": version["scores"]["c4"]}} for version in RECORD["versions"]
    ]
    made = rendered({}, versions=versions, unasked={"mmlu": mmlu | {"floor": 0.31}})
    assert (
        "\n\nMMLU by letter was not asked of the cut model: the whole model scores 0.29 ± 0.05 in "
        "99 questions, which is not clearly above 0.31, the best score without reading the "
        "question.\n" in made
    )
    assert "MMLU was not measured" not in made and "tasks mmlu" not in made


def test_a_task_of_lm_eval_is_named_as_lm_eval_does_and_by_no_path():
    """In the command of lm-eval; and in ours, which names no path of this machine."""
    task, first = "lm_eval:winogrande", RECORD["versions"][0]
    versions = [first | {"scores": {"c4": [3, 0.1], task: [0.6, 0.04]}, "to_whole": {}}]
    made = rendered({}, versions=versions, n={"c4": 32, task: 200})
    assert f"{task} is the accuracy in 200 questions (acc_norm of lm-eval if" in made
    assert "\nlm_eval --model hf" in made and "--tasks winogrande\n" in made
    call = Options("owner/name", 2, tasks=f"boolq {task} lm_eval:/home/me/riddles.yaml")
    assert f"TASKS='boolq {task} lm_eval:riddles.yaml'" in card.command(call, "name")
    assert "/" not in call.table_key("revision")


# ---- llama.cpp -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "family, layers, moved, sentence",
    [
        ("olmo3", 8, ["layer_types"], None),
        ("lfm2", 8, ["layer_types"], None),
        ("llama", 8, [], None),
        ("gemma2", 8, [], None),
        (
            "gemma2",
            8,
            ["layer_types"],
            "llama.cpp reads this model rightly only with one more array",
        ),
        ("gemma2", 46, ["layer_types"], "wrongly, without an error.* than in a model of 46"),
        ("exaone4", 64, [], "wrongly, without an error"),
        ("smollm3", 8, ["no_rope_layers"], "wrongly, without an error"),
        ("ministral", 8, ["layer_types"], "was not tried. The cut has moved its kinds of layers"),
    ],
)
def test_llama_cpp_is_said_to_be_wrong_only_where_that_was_measured(
    family, layers, moved, sentence
):
    first, last = RECORD["versions"]
    made = rendered({}, family, moved=moved, versions=[first | {"layers": layers}, last])
    if sentence is None:
        assert "llama.cpp" not in made
    else:
        assert re.search(sentence, made)


def test_a_hybrid_of_qwen_has_its_own_array_and_is_converted_without_what_was_dropped():
    kinds = ["linear_attention"] * 4 + ["full_attention", "linear_attention"]
    made = rendered({}, "qwen3_5_text", config={"layer_types": kinds})
    assert 'attention.recurrent_layers", [True, True, True, True, False, True])' in made
    assert "--outfile smaller.gguf --no-mtp\n" in made


# ---- beside the base model -----------------------------------------------------------------

README = "---\n{}\n---\n# A model"


@pytest.mark.parametrize(
    "front, licence, sentence",
    [
        ("license: mit", {"license": "mit"}, None),
        ("license: [apache-2.0, mit]", {"license": ["apache-2.0", "mit"]}, None),
        (
            "license: other\nlicense_name: own\nlicense_link: LICENSE.md",
            {"license": "other", "license_name": "own", "license_link": "LICENSE.md"},
            None,
        ),
        ("tags: [a]", {}, None),
        ("license: {mit", {}, "The licence in the README.md of base cannot be read"),
        ("- a list", {}, "The licence in the README.md of base cannot be read"),
        (
            "license: mit\nauthor: Ren\xe8",
            {},
            "The licence in the README.md of base cannot be read",
        ),
    ],
)
def test_what_lies_beside_a_base_is_read_or_unknown(front, licence, sentence, tmp_path):
    """A README in Latin-1, no YAML, a list; a folder of licences, a notice."""
    folder = tmp_path / "base"
    (folder / "LICENSES").mkdir(parents=True)
    (folder / "README.md").write_bytes(README.format(front).encode("latin-1"))
    (folder / "LICENSES" / "MIT.txt").write_text("terms")
    (folder / "NOTICE").write_text("note")
    base = card.read_base(f"{folder}/", folder)
    assert (base.name, base.licence) == ("base", licence)
    assert base.files == {"LICENSES/MIT.txt": b"terms", "NOTICE": b"note"}
    assert [sentence for sentence in base.unread if str(tmp_path) in sentence] == []
    assert len(base.unread) == (sentence is not None)
    assert all(unread.startswith(sentence) for unread in base.unread)
    made = rendered({}, beside=base)
    front_matter = made.split("---")[1]
    assert {key: yaml.safe_load(front_matter).get(key) for key in licence} == licence
    assert all(unread in made for unread in base.unread)
