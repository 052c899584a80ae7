"""States moved into another run, and ways that are closed, against whole forward passes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Distances, three_questions

from lib import evaluation
from lib.blocks import UNPRUNED, Block
from lib.models import loading
from lib.models.decoder import decoder_layers, residual_stream
from lib.pruning import dropped
from replication import measure, profiles
from replication.beyond.letters import jacobian_lens, readings, states, transplant
from replication.beyond.letters.transplant import (
    AS_IT_IS,
    NO_OPTIONS,
    OTHER_STATE,
    WHOLE_STATE,
    Variant,
)

SMOKE = profiles.get("smoke")


@pytest.fixture(scope="module")
def model_and_task():
    model, tokenizer = loading.load("tiny-random", dtype="float32")
    return model, tokenizer, three_questions()


def letters_of(model, ids, targets) -> np.ndarray:
    with torch.inference_mode():
        logits = model(ids, use_cache=False).logits[0, -1]
    return logits.log_softmax(-1)[list(targets)].numpy()


@pytest.mark.parametrize("block", [UNPRUNED, Block(2, 3)])
def test_a_state_that_is_put_in_does_what_it_does_in_a_whole_pass(model_and_task, block):
    """A hook of our own, in a pass over the whole prompt, without a cache."""
    model, tokenizer, task = model_and_task
    of_whole, _ = states.read_last_of_whole(model, tokenizer, task, 2048)
    given = of_whole[[1, 2, 0]]
    reading = WHOLE_STATE if block.size else OTHER_STATE
    depths = range(max(1, block.stop), 8)
    variants = [Variant(AS_IT_IS), *(Variant(reading, depth) for depth in depths)]
    choices = transplant.letters_of_variants(model, tokenizer, task, block, variants, given)
    for place, ((row,), example) in enumerate(
        zip(task.rows(tokenizer), task.examples, strict=True)
    ):
        ids = torch.tensor([tokenizer(example["prompt"]).input_ids])
        seen = {}
        with torch.inference_mode(), residual_stream(model, seen.__setitem__):
            model(ids)
        last = [seen[depth][0, -1].numpy() for depth in range(9)]
        np.testing.assert_allclose(of_whole[place], last, atol=1e-4)
        with dropped(model, block):
            expected = [letters_of(model, ids, row.target_ids[0])]
            for depth in depths:

                def put_in(module, args, kwargs, depth=depth):
                    inputs = (args[0] if args else kwargs["hidden_states"]).clone()
                    inputs[0, -1] = torch.from_numpy(given[place, depth])
                    return (inputs, *args[1:]), kwargs

                layer = decoder_layers(model)[depth - block.size]
                with layer.register_forward_pre_hook(put_in, with_kwargs=True):
                    expected.append(letters_of(model, ids, row.target_ids[0]))
        np.testing.assert_allclose(choices[:, place], expected, atol=1e-4)
    assert np.ptp(choices, axis=0).max() > 1e-3


def test_what_is_not_attended_to_has_no_part(model_and_task):
    """With all layers closed, other options give the same letters; open, they do not."""
    model, tokenizer, task = model_and_task
    closed = [Variant(AS_IT_IS), Variant(NO_OPTIONS, layers=(0, 8))]
    example = task.examples[0]
    lines = example["prompt"].split("\n")
    changed = {"prompt": "\n".join([*lines[:-5], *lines[-5:-1][::-1], lines[-1]])}
    words = [line[3:] for line in lines[-5:-1]][::-1]
    options = [f"{letter}. {text}" for letter, text in zip("ABCD", words, strict=True)]
    changed["prompt"] = "\n".join([*lines[:-5], *options, lines[-1]])
    of_whole, _ = states.read_last_of_whole(model, tokenizer, task, 2048)
    both = [
        transplant.letters_of_variants(
            model, tokenizer, replace(task, examples=(one,)), UNPRUNED, closed, of_whole[:1]
        )
        for one in (example, example | changed)
    ]
    np.testing.assert_allclose(both[0][1], both[1][1], atol=1e-4)
    assert np.abs(both[0][0] - both[1][0]).max() > 1e-3


def test_ways_are_closed_in_a_layer_that_is_packed():
    """Its first weights are bytes, in which no mask is written."""
    layer, places = torch.nn.Module(), SimpleNamespace(options=range(1, 3), question=range(1))
    layer.weight = torch.nn.Parameter(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    layer.norm = torch.nn.LayerNorm(2, dtype=torch.bfloat16)
    layer.self_attn = torch.nn.Identity()
    layer.self_attn.forward = lambda attention_mask: attention_mask
    closed, last_two = [Variant(NO_OPTIONS, layers=(0, 1))], torch.zeros(1, 2)
    with transplant._changed({0: layer}, closed, None, places, last_two, length=5):
        mask = layer.self_attn(attention_mask=None)
    expected = torch.zeros(1, 1, 2, 5, dtype=torch.bfloat16)
    expected[..., 1:3] = expected[..., 0, 4] = -torch.inf
    assert torch.equal(mask, expected)


def test_another_question_got_another_letter():
    letters = np.array([0, 0, 1, 2, 2, 0])
    donors = transplant.others(letters)
    assert (letters[donors] != letters).all() and (donors != np.arange(6)).all()


def test_every_change_has_a_row_and_lenses_read_the_same_states(output, monkeypatch):
    requests = transplant.transplants("tiny-random", Distances(start=1), SMOKE)
    table = readings.table(requests)
    whole, cut = table[table.block_size == 0], table[table.block_size > 0]
    assert set(whole.reading) == {AS_IT_IS, OTHER_STATE, NO_OPTIONS, transplant.NO_QUESTION}
    assert set(cut.reading) == {AS_IT_IS, WHOLE_STATE}
    assert set(whole.layers.dropna()) == {"3 to 4", "5 to 5", "6 to 7"}
    assert table.value.between(0, 1).all()
    assert evaluation.TASK_SPECS[transplant.TASK].label in "ARC-Easy by letter"
    monkeypatch.setattr(states, "read_last_of_whole", lambda *_: pytest.fail("read again"))
    lenses = measure.table(jacobian_lens.lens, {"tiny-random": Distances()}, SMOKE)
    places = {(reading, depth) for reading in ("last token", "published") for depth in (1, 2, 3)}
    assert set(zip(lenses.reading, lenses.depth, strict=True)) == places
    assert lenses.n.unique() == whole.n.unique() and lenses.num_texts.eq(6).all()
    read = jacobian_lens.summary(lenses)
    assert len(read) == 6 and read.notna().all(axis=None)
    figure = transplant.figure_transplants(table)
    assert [len(axis.containers) for axis in figure.axes] == [3, 1, 2]
