"""The shared sweep equals dropping each block and running the model whole."""

import random

import numpy as np
import pytest
import tokenizers
import torch
from conftest import ROUNDING, VOCAB, tiny

from lib import sweep
from lib.blocks import UNPRUNED, Block
from lib.data.encoding import Row
from lib.evaluation import Task
from lib.healing import linear
from lib.pruning import dropped

BLOCKS = [UNPRUNED, Block(1, 1), Block(0, 3), Block(1, 3), Block(2, 2), Block(4, 2), Block(0, 5)]


def random_tokens(count: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCAB, (count,), generator=generator)
    return tuple(tokens.tolist())


def few_shot_rows() -> list[Row]:
    """Groups with prefixes longer than the sliding window, rows of unlike length, and loners."""
    rows = []
    for group, (length, size) in enumerate([(17, 5), (17, 5), (13, 2)]):
        prefix = random_tokens(length, seed=group)
        for i in range(size):
            own = random_tokens(3 + 2 * i, seed=10 * group + i)
            rows.append(Row(prefix + own, ((5, 6, 7),), group))
    alike = random_tokens(21, seed=1)  # a prompt, and 9 tokens with which its choices begin
    for i in range(3):
        tokens = alike + random_tokens(2 + i, seed=10 + i)
        targets = tuple((token,) for token in tokens[12:])
        rows.append(Row(tokens[:-1], targets, "question"))
    for length in (4, 25, 9):
        tokens = random_tokens(length, seed=length)
        rows.append(Row(tokens, ((5, 6, 7), (8, 9, 10))))
    text = np.array(random_tokens(14, seed=12))
    return [*rows, Row(text[:-1], text[1:, None])]


def whole(model, row: Row) -> np.ndarray:
    """Return the wanted log-probabilities of one row, alone, by HF's own causal-LM forward."""
    ids = torch.tensor(np.array([row.tokens]), device=model.device)
    targets = torch.tensor(np.array(row.target_ids))
    with torch.inference_mode():
        own_logits = model(ids, use_cache=False).logits[0]
    logprobs = own_logits.double().log_softmax(-1).cpu()
    scored = logprobs[-len(targets) :].gather(1, targets)
    return scored.flatten().numpy()


def assert_naive(model, batch_tokens: int) -> None:
    """The log-probabilities of a sweep are those of each row alone in the model without a block."""
    rows = few_shot_rows()
    swept = sweep.target_logprobs(model, BLOCKS, rows, batch_tokens, label="test")
    for block in BLOCKS:
        with dropped(model, block):
            for row, values in zip(rows, swept[block], strict=True):
                expected = whole(model, row)
                atol = 1e-4 * ROUNDING
                np.testing.assert_allclose(values, expected, atol=atol, err_msg=str(block))


def test_final_states_bit_for_bit(model, ids):
    """In fp32, at equal batch shapes, also for blocks with the first or the last layer."""
    with torch.inference_mode():
        for block, states in sweep.final_states(model, BLOCKS, ids, lambda block: None):
            with dropped(model, block):
                expected = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            assert torch.equal(states, expected), block


def test_scores_with_shared_prefixes(model):
    """One batch for each prefix."""
    assert_naive(model, 60)


@pytest.mark.parametrize("batch_tokens", [30, 500])
def test_several_batches_a_prefix_or_prefixes_a_batch(llama, batch_tokens):
    assert_naive(llama, batch_tokens)


def test_choices_do_not_tie_because_of_rounding(llama):
    """Logits are products in fp32: rounded to bf16, these two differ by steps of a quarter."""
    llama.to(torch.bfloat16)
    head = llama.lm_head.weight.data
    head[5] *= 20 / head[5].norm()
    noise = torch.randn(head.shape[1])
    head[6] = head[5] * (1 + 0.005 * noise)
    direction = head[5].double() - head[6].double()
    rows = []
    for seed in range(20):
        tokens = random_tokens(6 + seed % 5, seed)
        rows.append(Row(tokens, ((5, 6),)))
    swept = sweep.target_logprobs(llama, [UNPRUNED], rows, 60, label="test")
    for row, (first, second) in zip(rows, swept[UNPRUNED], strict=True):
        ids = torch.tensor([row.tokens])
        with torch.inference_mode():
            states = llama.get_decoder()(ids).last_hidden_state
        exact = direction @ states[0, -1].double()
        assert first - second == pytest.approx(float(exact), abs=0.02)


TEXTS = ("abcdefgh" * 2, "xyzuvwk", "hello world")
LOSS = Task("c4", tuple({"text": text, "max_tokens": 20} for text in TEXTS))


def test_a_loss_is_the_mean_over_all_tokens_but_the_first_of_each_text(llama, tokenizer):
    nats, tokens = [], []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids[:, :20].to(llama.device)
        nats.append(llama(ids, labels=ids).loss.item())
        tokens.append(ids.numel() - 1)
    loss = sweep.sweep(llama, tokenizer, [], [LOSS]).value.item()
    assert loss == pytest.approx(np.average(nats, weights=tokens), abs=1e-5)


# ---- a block's score does not depend on what else is in its sweep ----------------------------


def mapped(start: int, size: int, name: str) -> linear.Mapped:
    """Return a block with a random map, so small that versions of the model still differ."""
    seed = torch.Generator().manual_seed(100 * start + size)
    change = 0.1 * torch.randn(32, 32, generator=seed)
    return linear.Mapped(start, size, name, change)


KINDS = [
    Block(1, 1),
    Block(0, 3),
    Block(3, 3),  # an early exit
    Block(5, 1),
    mapped(1, 1, "full"),
    mapped(4, 2, "full"),
    mapped(1, 1, "folded"),
    mapped(2, 2, "folded"),
    mapped(4, 1, "folded"),
    linear.Mapped(4, 1, "folded", -mapped(4, 1, "folded").change),  # of one name and block
]


def losses(model, tokenizer, blocks) -> list[float]:
    """Return the loss without each block, all of them in one sweep."""
    maps = [block for block in blocks if isinstance(block, linear.Mapped)]
    with linear.reading_ffn(model, maps):
        table = sweep.sweep(model, tokenizer, blocks, [LOSS])
    return table.value.tolist()[1:]


def test_what_else_is_in_a_sweep_changes_nothing(llama, tokenizer):
    """Every kind of block alone, and all of them in any order."""
    alone = {}
    for block in KINDS:
        (alone[id(block)],) = losses(llama, tokenizer, [block])
    different = {round(loss, 4) for loss in alone.values()}
    assert len(different) == len(KINDS)
    shuffled = random.Random(0).sample(KINDS, len(KINDS))
    for blocks in (KINDS, KINDS[::-1], shuffled):
        expected = [alone[id(block)] for block in blocks]
        measured = losses(llama, tokenizer, blocks)
        assert measured == pytest.approx(expected, abs=1e-5)


def test_each_kind_of_block_writes_as_it_is_scored(llama, tokenizer):
    """The likeliest token each time, of the states by which its losses are computed."""
    tokenizer.pad_token = "<unk>"
    tokenizer.backend_tokenizer.decoder = tokenizers.decoders.Fuse()  # without spaces
    prompt = [3, 1, 4, 1, 5]
    with linear.reading_ffn(llama, KINDS), torch.inference_mode():
        written = sweep.continuations(llama, tokenizer, KINDS, [Row(tuple(prompt), ())], 5, 200)
        for block in KINDS:
            tokens = list(prompt)
            for _ in range(5):
                ids = torch.tensor([tokens], device=llama.device)
                passes = dict(sweep.final_states(llama, [block], ids, lambda _: None))
                tokens.append(int(llama.lm_head(passes[block][0, -1]).argmax()))
            assert written[block] == [tokenizer.decode(tokens[len(prompt) :], True)]
    assert len({text for (text,) in written.values()}) > len(KINDS) / 2


def test_a_row_longer_than_the_model_reads_ends_in_a_sentence(llama, tokenizer):
    """GPT-2's table of positions ends at 1,024, a prompt of MMLU at 2,048."""
    llama.config.max_position_embeddings = 3
    with pytest.raises(ValueError, match="this model reads at most 3"):
        sweep.sweep(llama, tokenizer, [], [Task("c4", ({"text": "a b c d e f", "max_tokens": 9},))])
    llama.config.max_position_embeddings = 20
    question = {"prompt": "a b c d e f", "new_tokens": 20, "answer": "1", "group": None}
    with pytest.raises(ValueError, match="and 20 to write; this model reads at most 20"):
        sweep.sweep(llama, tokenizer, [], [Task("gsm8k", (question,))])
    sweep.check_rows(tiny("bloom"), [Row((3, 1), ())], "gsm8k", new_tokens=20)  # it has no limit


@pytest.mark.parametrize("name", ["c4", "gsm8k", "arc_easy"])
def test_a_task_without_examples_ends_in_a_sentence(llama, tokenizer, name):
    with pytest.raises(ValueError, match=f"The task {name} has no example"):
        sweep.sweep(llama, tokenizer, [], [Task(name, ())])
