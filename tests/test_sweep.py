"""The shared sweep equals dropping each block and running the model whole."""

import numpy as np
import pytest
import torch
import transformers
from conftest import GROUPED, LAYERS, LENGTH, ROUNDING, SIZE, VOCAB, WINDOW, built

from lib import sweep
from lib.blocks import UNPRUNED, Block
from lib.data.encoding import Row
from lib.evaluation import Task
from lib.models import layers, reading
from lib.models.decoder import decoder_layers, fp32_target_logits, logits, residual_stream
from lib.pruning import dropped
from replication.beyond import last_layers

BLOCKS = [UNPRUNED, Block(1, 1), Block(0, 3), Block(1, 3), Block(2, 2), Block(4, 2), Block(0, 5)]


def random_tokens(count: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(3, VOCAB, (count,), generator=generator).tolist())


def few_shot_rows() -> list[Row]:
    """Groups with prefixes longer than the sliding window, rows of unlike length, and loners."""
    rows = []
    for group, (length, size) in enumerate([(17, 5), (17, 5), (13, 2)]):
        prefix = random_tokens(length, seed=group)
        for i in range(size):
            own = random_tokens(3 + 2 * i, seed=10 * group + i)
            rows.append(Row(prefix + own, ((5, 6, 7),), group))
    rows += [Row(random_tokens(n, seed=n), ((5, 6, 7), (8, 9, 10))) for n in (4, 25, 9)]
    rows.append(Row(random_tokens(11, seed=11), ((5, 6, 7, 8, 9),)))  # of five choices
    text = np.array(random_tokens(14, seed=12))
    return [*rows, Row(text[:-1], text[1:, None])]


def whole(model, row: Row) -> np.ndarray:
    """The wanted log-probabilities of one row, alone, by HF's own causal-LM forward."""
    ids = torch.tensor(np.array([row.tokens]), device=model.device)
    targets = torch.tensor(np.array(row.target_ids))
    with torch.inference_mode():
        scores = model(ids, use_cache=False).logits[0].double().log_softmax(-1).cpu()
    return scores[-len(targets) :].gather(1, targets).flatten().numpy()


def test_final_states_bit_for_bit(model, ids):
    """In fp32, at equal batch shapes, also for blocks with the first or the last layer."""
    with torch.inference_mode():
        for block, states in sweep.final_states(model, BLOCKS, ids, lambda block: None):
            with dropped(model, block):
                expected = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
            assert torch.equal(states, expected), block


def assert_naive(model, rows: list[Row], batch_tokens: int) -> None:
    """The log-probabilities of a sweep are those of each row alone in the model without a block."""
    swept = sweep.target_logprobs(model, BLOCKS, rows, batch_tokens, label="test")
    for block in BLOCKS:
        with dropped(model, block):
            for row, values in zip(rows, swept[block], strict=True):
                expected, atol = whole(model, row), 1e-4 * ROUNDING
                np.testing.assert_allclose(values, expected, atol=atol, err_msg=str(block))


@pytest.mark.parametrize("batch_tokens", [30, 60, 500])
def test_scores_with_shared_prefixes(model, batch_tokens):
    """One prefix for several batches, one batch, and several prefixes in one batch."""
    rows = few_shot_rows()
    assert_naive(model, rows, batch_tokens)


def deepseek_v4():
    """Its cache cannot be repeated; many heads, as ties of its indexer fall by chance."""
    sizes = {key: value for key, value in SIZE.items() if key != "intermediate_size"}
    sparse, heavy = "compressed_sparse_attention", "heavily_compressed_attention"
    heads = {"head_dim": 8, "num_key_value_heads": 1, "partial_rotary_factor": 0.5}
    heads |= {"index_n_heads": 16, "index_head_dim": 8, "index_topk": 4}
    ranks = {"q_lora_rank": 8, "o_lora_rank": 8, "o_groups": 2, "hc_mult": 2}
    return transformers.DeepseekV4Config(
        **sizes | heads | ranks,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=128,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", sparse, heavy] * 2,
        compress_rates={sparse: 4, heavy: 8},
    )


def nemotron_h():
    """It asks each layer what kind it is, also the one that stands for a dropped end."""
    return transformers.NemotronHConfig(
        **{key: value for key, value in GROUPED.items() if key != "num_hidden_layers"},
        head_dim=8,
        layers_block_type=["linear_attention", "mlp", "full_attention"] * 2,
        mamba_num_heads=8,
        mamba_head_dim=8,
        ssm_state_size=8,
        n_groups=1,
        chunk_size=8,
    )


@pytest.mark.parametrize("config", [deepseek_v4, nemotron_h])
def test_decoders_of_a_kind_of_their_own(config):
    layers.check(config())
    assert_naive(built(config()), few_shot_rows(), 60)


def test_a_first_token_goes_on_as_in_the_whole_model(llama):
    """As by a hook before the layer after the cut, of each row alone."""
    block, rows, states = last_layers.FirstTokenPatched(1, 3), few_shot_rows(), {}
    blocks = [UNPRUNED, Block(1, 3), block]
    _, *swept = sweep.target_logprobs(llama, blocks, rows, batch_tokens=60, label="test").values()

    def patched(module, args, kwargs):
        state = (args[0] if args else kwargs["hidden_states"]).clone()
        state[:, 0] = states[block.stop][:, 0]
        return ((state, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": state})

    for row, plain, values in zip(rows, *swept, strict=True):
        with residual_stream(llama, states.__setitem__, at=[block.stop]):
            whole(llama, row)
        with dropped(llama, block):
            hook = decoder_layers(llama)[1].register_forward_pre_hook(patched, with_kwargs=True)
            np.testing.assert_allclose(values, whole(llama, row), atol=1e-4)
            hook.remove()
        assert np.abs(values - plain).max() > 1e-3


def test_choices_that_begin_alike(llama):
    """Only what precedes the scored tokens is a shared prefix, however alike the choices begin."""
    prompt, alike = random_tokens(12, seed=1), random_tokens(9, seed=2)
    answers = [alike + random_tokens(2 + i, seed=10 + i) for i in range(3)]
    rows = [Row(prompt + a[:-1], tuple((token,) for token in a), "question") for a in answers]
    assert_naive(llama, rows, 500)


def test_head_is_the_models_own(model, ids):
    with torch.inference_mode():
        states = model.get_decoder()(input_ids=ids).last_hidden_state
        assert torch.allclose(logits(model, states[0]), model(ids).logits[0], atol=1e-5)
        model(ids)  # and the decoder computes again afterwards


def yes_and_no(model, rows: int) -> list[Row]:
    """Questions whose two answers (tokens 5 and 6) are almost alike to a bf16 model."""
    model.to(torch.bfloat16)
    with torch.no_grad():
        head = model.lm_head.weight
        head[5] *= 20 / head[5].norm()
        head[6] = head[5] * (1 + 0.005 * torch.randn(head.shape[1]))
    return [Row(random_tokens(6 + i % 5, seed=i), ((5, 6),)) for i in range(rows)]


def test_choices_do_not_tie_because_of_rounding(llama):
    """Their logits are products in fp32: rounded to bf16, many of these answers are equal."""
    rows = yes_and_no(llama, 40)
    with torch.inference_mode():
        rounded = [llama(torch.tensor([row.tokens])).logits[0, -1, 5:7] for row in rows]
    assert sum(float(a == b) for a, b in rounded) > 8
    blocks = (UNPRUNED, Block(1, 2))
    swept = sweep.target_logprobs(llama, blocks, rows, 60, label="test")
    for block in blocks:
        with dropped(llama, block), torch.inference_mode():
            for row, (a, b) in zip(rows, swept[block], strict=True):
                assert a != b
                states = llama.get_decoder()(torch.tensor([row.tokens])).last_hidden_state[0, -1]
                exact = llama.lm_head.weight[5:7].double() @ states.double()
                assert a - b == pytest.approx(float(exact[0] - exact[1]), abs=0.02)


def test_precise_logits_are_the_models_own(model, ids):
    """In bf16 states and weights, whatever stands around lm_head (bias, soft-capping, scale)."""
    head, target_ids = model.get_output_embeddings(), torch.tensor([[5, 6, 7]] * LENGTH)
    with torch.inference_mode():
        states = model.get_decoder()(ids).last_hidden_state[0].bfloat16()
        for parameter in head.parameters():
            parameter.data = parameter.data.bfloat16()
        precise = fp32_target_logits(model, states, target_ids)
        rounded = logits(model, states)
        for parameter in head.parameters():
            parameter.data = parameter.data.float()
        expected = logits(model, states.float())
    assert precise.dtype == torch.float32 and "forward" not in vars(head)
    rest = [token for token in range(VOCAB) if token not in (5, 6, 7)]
    assert torch.equal(precise[:, rest], rounded[:, rest].float())
    assert float((precise - expected)[:, 5:8].abs().max()) < 1e-5 * float(expected.abs().max())


def test_layer_applications_are_counted(llama):
    rows = few_shot_rows()
    applied = []
    for layer in decoder_layers(llama):
        layer.mlp.register_forward_hook(lambda *_: applied.append(1))
    sweep.target_logprobs(llama, BLOCKS, rows, batch_tokens=60, label="test")
    passes = sum(
        (bundle.prefix is not None) + len(bundle.batches)
        for bundle in reading.prefix_batches(rows, 60)
    )
    after_cuts = sum(LAYERS - block.stop for block in BLOCKS if block.size)
    assert len(applied) == passes * (LAYERS + after_cuts)


def test_sweep_table(llama, tokenizer):
    examples = tuple({"text": "abcdefgh" * k, "max_tokens": 20} for k in (1, 2, 3))
    table = sweep.sweep(llama, tokenizer, [Block(1, 2), Block(1, 2)], [Task("c4", examples)])
    assert list(zip(table.block_start, table.block_size, strict=True)) == [(0, 0), (1, 2)]
    row = table.iloc[1]
    assert row.n == 3 and row.weights.tolist() == [7, 15, 19]
    assert row.value == pytest.approx(np.average(row.examples, weights=row.weights))
    with dropped(llama, Block(1, 2)):
        alone = sweep.sweep(llama, tokenizer, [], [Task("c4", examples)]).iloc[0]
    assert row.value == pytest.approx(alone.value, abs=1e-5)


def test_a_sweep_keeps_what_was_answered(llama, tokenizer):
    """The log-likelihood of every choice, and that a constant answer is one."""
    with torch.no_grad():
        llama.lm_head.weight[3 + ord("b") % 93] = 0
        llama.lm_head.bias = torch.nn.Parameter(torch.zeros(VOCAB))
        llama.lm_head.bias[3 + ord("b") % 93] = 9.0  # b, whatever the question
    shared = {"choices": ["a", "b"], "group": None, "weight": 1}
    examples = tuple(shared | {"prompt": f"q{i}?", "answer": i % 2} for i in range(6))
    task = Task("boolq", examples)
    table = sweep.sweep(llama, tokenizer, [Block(1, 2)], [task])
    assert table.ties.tolist() == [0, 0] and np.allclose(table.commonest, 1)
    assert table.examples[1].tolist() == [0, 1, 0, 1, 0, 1]
    for (row,), choices in zip(task.rows(tokenizer), table.choices[0], strict=True):
        np.testing.assert_allclose(choices, whole(llama, row), atol=1e-5)


def test_a_block_that_does_not_fit(llama, tokenizer):
    with pytest.raises(ValueError, match="at least one must stay"):
        sweep.sweep(llama, tokenizer, [Block(5, 2)], [])


def test_the_model_comes_back_after_an_error(llama, ids):
    before = llama(ids).logits
    with pytest.raises(RuntimeError), layers.run_after_block(llama, Block(1, 2), torch.zeros(1)):
        raise RuntimeError
    assert torch.equal(llama(ids).logits, before)
