"""Texts that are chats: the model's own template, and only the assistant's answers count."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import letters, stored, text, tiny
from healings import START, heal, killed_at, weights
from transformers import LlamaConfig

from lib.data import chats, sets
from lib.healing import packing
from lib.models import files, loading
from lib.prune import Options, far, prune, steps
from lib.sweep import sweep

# ---- which tokens count --------------------------------------------------------------------

GENERATED = "{% generation %}", "{% endgeneration %}"  # by which transformers counts
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
    "(({{ m.content + '<|im_end|>' }})){% else %}{{ m.content + '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
)
TEMPLATES = {  # answers between (( and ))
    "chatml": CHATML,
    "trimmed": CHATML.replace("m.content", "(m.content | trim)"),
    # no special token, and the space before an answer is part of its first token
    "plain": "{% for m in messages %}{% if m.role == 'assistant' %}Answer:(({{ ' ' + m.content }}))"
    "{% else %}{{ m.role + ': ' + m.content }}{% endif %}{{ '\n' }}{% endfor %}",
}
CHAT = [
    ("system", "Be brief."),
    ("user", "assistant"),
    ("assistant", "assistant 🙂é"),
    ("user", "So?"),
    ("assistant", "So?  user: no\n\nassistant"),
]


def entries(chat) -> list[dict]:
    return [{"role": role, "content": content} for role, content in chat]


def counted_by_transformers(tokenizer, template: str, chat) -> tuple[list[int], list[int]]:
    """Return the tokens of a chat, and the places of those within `generation` of a template."""
    template = template.replace("((", GENERATED[0]).replace("))", GENERATED[1])
    made = tokenizer.apply_chat_template(
        entries(chat),
        chat_template=template,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    return made["input_ids"], np.flatnonzero(made["assistant_masks"]).tolist()


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize(
    "name", ["smollm2-135m", pytest.param("qwen2.5-coder-0.5b", marks=pytest.mark.real)]
)
def test_the_answers_tokens_count_and_the_one_that_ends_each(name, template):
    tokenizer = files.tokenizer(name)
    tokenizer.chat_template = TEMPLATES[template].replace("((", "").replace("))", "")
    ids, spans = chats.tokens(chats.read(entries(CHAT)), tokenizer)
    expected, places = counted_by_transformers(tokenizer, TEMPLATES[template], CHAT)
    assert ids == expected
    assert [place for span in spans for place in range(*span)] == places
    assert len(spans) == 2
    cut = spans[1][0] + 1  # after the second answer's first token
    assert chats.tokens(chats.read(entries(CHAT)), tokenizer, cut) == (
        ids[:cut],
        [spans[0], (cut - 1, cut)],
    )


def test_a_models_own_template_is_used_and_its_last_token_ends_an_answer(smollm2):
    """White space around an answer may be left out by a template; then it does not count."""
    own = "<|im_start|>assistant\nYes.<|im_end|>"
    chat = chats.read(entries([("user", "Yes?"), ("assistant", "Yes.")]))
    ids, ((start, stop),) = chats.tokens(chat, smollm2)
    assert smollm2.decode(ids).rstrip().endswith(own)
    assert smollm2.convert_ids_to_tokens(ids[start:stop]) == ["Yes", ".", "<|im_end|>"]
    smollm2 = files.tokenizer("smollm2-135m")
    smollm2.chat_template = TEMPLATES["trimmed"].replace("((", "").replace("))", "")
    chat = chats.read(entries([("user", "Yes?"), ("assistant", "\n Yes. \n")]))
    ids, ((start, stop),) = chats.tokens(chat, smollm2)
    assert smollm2.convert_ids_to_tokens(ids[start:stop]) == ["Yes", ".", "<|im_end|>"]


@pytest.mark.parametrize(
    "template, sentence",
    [
        ("{{ raise_exception('no system') }}", "template of the model refuses a chat: no system"),
        ("{{ messages[0].content }}", "does not show all of an answer .'YES'"),
    ],
)
def test_what_a_template_refuses_or_hides_is_one_sentence(template, sentence):
    tokenizer = letters()
    tokenizer.chat_template = template
    chat = chats.read(entries([("user", "a"), ("assistant", "YES")]))
    with pytest.raises(ValueError, match=sentence):
        chats.check([chat], tokenizer, "model")


# ---- a file of chats -----------------------------------------------------------------------

# a letter is a token, answers are in capitals, and so is nothing else
LETTERS = "{% for m in messages %}{{ m.role[0] + ':' + m.content + eos_token }}{% endfor %}"


def lines(count: int = 40) -> list[dict]:
    """Chats of one or two answers of several lengths, the first one long."""
    draw, rows = random.Random(0), []
    for number in range(count):
        chat = [("system", "s" * draw.randint(1, 9))]
        for _ in range(draw.randint(1, 2)):
            length = 70 if number == 0 else draw.randint(1, 30)
            chat += [("user", "q" * draw.randint(1, 60)), ("assistant", "A" + "BCDE" * length)]
        rows.append({"messages": entries(chat)})
    return rows


def written(rows: list[dict], file) -> str:
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """The folder of a tiny model whose tokenizer has a chat template."""
    folder = stored(tiny("llama"), tmp_path_factory.mktemp("talking") / "model")
    tokenizer = letters()
    tokenizer.chat_template = LETTERS
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def own(tmp_path):
    return written(lines(), tmp_path / "own.jsonl")


def is_capital(tokenizer, ids) -> list[bool]:
    return [token.isupper() for token in tokenizer.convert_ids_to_tokens(ids)]


@pytest.mark.parametrize("packed", [True, False])
def test_labels_survive_packing_and_chunks(talking, own, packed):
    """Joined in one row or padded; what a sequence cuts off keeps its labels, and is read once."""
    tokenizer = files.tokenizer(talking)
    recipe = replace(START, packed=packed, source=own, max_tokens=50, batch=1, steps=60)
    recipe = replace(recipe, beginnings_first=True)
    sequences, epochs = packing.training_sequences(tokenizer, recipe)
    joined, padded = (packing.collator(way)(sequences) for way in (True, False))
    for batch in (joined, padded):
        targets = batch["labels"] != -100
        ids, labels = (batch[name][targets].tolist() for name in ("input_ids", "labels"))
        assert ids == labels
        assert len(ids) == packing.targets(sequences) < packing.real_tokens(sequences)
        end = tokenizer.eos_token_id
        assert all(is_capital(tokenizer, [i])[0] or i == end for i in ids)
        # of an answer's capitals only the first token of a part has nothing before it
        others = batch["input_ids"][~targets & (batch["input_ids"] != end)].tolist()
        capitals = sum(is_capital(tokenizer, others))
        parts = [ids for sequence in sequences for ids in sequence["documents"]]
        assert capitals == sum(is_capital(tokenizer, [part[0]])[0] for part in parts)
    assert all(packing.targets([sequence]) for sequence in sequences)
    if packed:
        assert {packing.real_tokens([s]) for s in sequences} == {50}
        assert capitals > 0


def test_the_held_out_loss_is_of_answers_only(talking, own, base):
    """By hand, from one pass over each chat."""
    tokenizer = files.tokenizer(talking)
    task = Options(talking, layers=2, texts=own, sequence=400, tasks="c4").scored()[0]
    nats = count = 0
    for example in task.examples:
        ids = tokenizer.apply_chat_template(entries(example["text"].messages))["input_ids"]
        ids = ids[:400]  # one is longer
        logprobs = base[0](torch.tensor([ids])).logits.log_softmax(-1)[0]
        for place in range(1, len(ids)):
            ends = ids[place] == tokenizer.eos_token_id and is_capital(tokenizer, [ids[place - 1]])
            if is_capital(tokenizer, [ids[place]])[0] or (ends and ends[0]):
                nats -= logprobs[place - 1, ids[place]].item()
                count += 1
    (row,) = sweep(base[0], tokenizer, [], [task]).itertuples()
    assert row.weights.sum() == count
    assert row.value == pytest.approx(nats / count, abs=1e-5)


def test_chats_heal_and_judge_apart_and_a_healing_resumes(talking, own, base, tmp_path):
    model = base[0], files.tokenizer(talking)
    judging, training = (sets.c4(split, own, None) for split in ("validation", "train"))
    assert not {*judging} & {*training} and len(judging) == 5
    recipe, seen = replace(START, source=own, steps=6), []
    task = Options(talking, layers=2, texts=own, tasks="c4").scored()[0]

    def loss() -> float:
        sweep(*model, [], [task])  # which really reads, chats of several answers by a cache
        seen.append(base[0].training)
        return float(len(seen))

    watched = heal(model, tmp_path / "watched", recipe, held_out_loss=loss)
    assert watched.held_out == [[0, 1.0], [2, 2.0], [3, 3.0], [4, 4.0], [6, 5.0]]
    assert not any(seen)
    with killed_at(4):
        heal(model, tmp_path / "killed", recipe, held_out_loss=lambda: 0.0)
    plain = heal(model, tmp_path / "killed", recipe, held_out_loss=lambda: 1.0)
    alone = heal(model, tmp_path / "alone", recipe)
    assert weights(plain) == weights(watched) == weights(alone)
    assert [value for _, value in plain.held_out] == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert plain.targets == watched.targets < watched.real_tokens


# ---- far into texts ------------------------------------------------------------------------


def test_the_loss_far_into_texts_reads_all_that_comes_before(base, monkeypatch):
    monkeypatch.setattr(far, "LENGTHS", (300, 400))
    call, (model, tokenizer) = Options("a", layers=2, limit=3), base
    short = LlamaConfig(max_position_embeddings=299)
    assert not far.tasks(call, short, tokenizer)
    assert {*far.tasks(call, model.config, tokenizer)} == {"c4_300"}
    tasks = far.tasks(replace(call, sequence=400), model.config, tokenizer)
    assert {*tasks} == {"c4_300", "c4_400"}
    for (name, task), (first, length) in zip(tasks.items(), [(256, 300), (300, 400)], strict=True):
        losses = []
        for example in task.examples:
            ids = torch.tensor([tokenizer(example["text"]).input_ids[:length]])
            logprobs = model(ids).logits.log_softmax(-1)[0, :-1]
            losses.append(-logprobs.gather(1, ids[0, 1:, None])[first - 1 :].mean().item())
            assert ids.numel() == length
        (score,) = sweep(model, tokenizer, [], [task]).value
        assert len(losses) == 3, name
        assert score == pytest.approx(np.mean(losses), abs=1e-5)


def test_texts_that_are_too_short_are_not_read_far(base, tmp_path):
    file = tmp_path / "short.txt"
    file.write_text("\n".join(map(str, range(40))))
    assert not far.tasks(Options("a", layers=2, texts=str(file)), base[0].config, base[1])


# ---- the whole way -------------------------------------------------------------------------


def test_chats_are_cut_mapped_and_healed_and_the_card_says_what_it_cost(
    talking, own, tmp_path, monkeypatch, capsys
):
    """The losses while healing are those of the mapped and of the saved model, by the card."""
    monkeypatch.setattr(loading, "default_dtype", lambda device: "float32")
    monkeypatch.setattr(steps, "WATCHED", 1000)
    monkeypatch.setattr(far, "LENGTHS", (300, 500))
    settings = {"repair": "map", "steps": 4, "batch": 2, "rank": 4, "sequence": 300, "lr": 0.01}
    call = Options(talking, layers=2, tasks="c4", texts=own, **settings)
    record = prune(call, tmp_path / "out")
    printed, card = capsys.readouterr().out, text(tmp_path / "out" / "README.md")
    by_version = {row["version"]: row["scores"] for row in record["versions"]}
    losses = dict(record["healing"]["held_out"])
    assert [*losses] == [0, 1, 2, 3, 4]
    assert losses[0] == pytest.approx(by_version["mapped"]["c4"][0], abs=1e-5)
    assert losses[4] == pytest.approx(by_version["saved"]["c4"][0], abs=1e-4)
    assert losses[4] < losses[0] - 0.05
    for step, loss in losses.items():
        assert f"{step} of 4 steps: held-out loss {loss:.3f}" in printed
    assert f"| {losses[0]:.3f} before the first step, {losses[1]:.3f} after 1, " in card
    assert "4 steps of 2 × 300, LoRA of rank 4 " in card and "over the answers in 5 chats" in card
    assert "Beyond 300 tokens of a text it was not measured: too few texts" in card
    targets, tokens = (record["healing"][name] for name in ("targets", "real_tokens"))
    assert f"trained after the cut on {tokens:,} tokens (own.jsonl, of which {targets:,} of" in card
    assert tokens == 4 * 2 * 300 and targets < tokens


def test_a_card_has_the_loss_far_into_texts_of_the_whole_and_the_saved_model(
    talking, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "default_dtype", lambda device: "float32")
    monkeypatch.setattr(far, "LENGTHS", (300, 400))
    monkeypatch.setattr(far, "window", lambda config: 512)
    record = prune(Options(talking, layers=2, tasks="c4", limit=3), tmp_path / "out")
    has = {row["version"]: "c4_300" in row["scores"] for row in record["versions"]}
    assert has == {"whole": True, "cut": False, "saved": True}
    assert "c4_400" not in record["n"]
    out = loading.load(str(tmp_path / "out"))
    for name, task in far.tasks(Options("a", layers=2, limit=3), out[0].config, out[1]).items():
        (score,) = sweep(*out, [], [task]).itertuples()
        expected = score.value, score.standard_error
        assert record["versions"][-1]["scores"][name] == pytest.approx(expected)
