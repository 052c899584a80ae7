"""Documents joined in one row are read as each alone, and heal like padded ones."""

from dataclasses import replace
from inspect import signature
from itertools import pairwise

import pytest
import torch
from conftest import ARCHITECTURES, GROUPED, LENGTH, VOCAB, WINDOW, tiny
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import CONFIG_MAPPING, LlamaForCausalLM, TrainerCallback

from lib.healing import lora, packing, training
from lib.models import files
from replication import profiles

ABLE = ("llama", "mistral", "qwen2", "qwen3", "gemma3", "phi", "gpt_neox", "smollm3", "gpt2")
UNABLE = ("gemma2", "bloom", "lfm2", "qwen3_next", "granitemoehybrid")
OTHER_FUNCTIONS = {  # what they give to their attention beside the usual: learned sinks, a mask
    "granite_swa": lambda: CONFIG_MAPPING["granite_swa"](**GROUPED, sliding_window=WINDOW),
    "doge": lambda: CONFIG_MAPPING["doge"](**GROUPED),
}
NAMED = ("llama", "qwen2", "mistral", "phi", "gemma3")
RECIPE = replace(
    profiles.recipe("tiny-random", profiles.get("smoke")),
    **{"steps": 2, "batch": 8, "learning_rate": 0.02, "dropout": 0.0, "packed": False},
)


def some(count: int, seed: int = 0) -> list[list[int]]:
    """Documents of very unequal length, some beyond the sliding window."""
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LENGTH, (count,), generator=draw).tolist()
    return [torch.randint(3, VOCAB, (n,), generator=draw).tolist() for n in lengths]


def logits(model, batch) -> torch.Tensor:
    with torch.inference_mode():
        return model(**batch, use_cache=False).logits


@pytest.mark.parametrize("name", ABLE)
def test_joined_documents_are_read_as_each_alone(name):
    model, read = tiny(name), some(5)
    batch = packing.collator(True, 0)([{"documents": read[:2]}, {"documents": read[2:]}])
    assert batch["input_ids"].shape == (1, sum(map(len, read)))
    labels = batch.pop("labels")[0]
    ends = torch.tensor([0, *map(len, read)]).cumsum(0)
    assert (labels == -100).nonzero().flatten().tolist() == ends[:-1].tolist()
    with packing.isolated_documents(model) as able:
        assert able
        joined = logits(model, batch)[0]
    for document, (start, stop) in zip(read, pairwise(ends.tolist()), strict=True):
        alone = logits(model, {"input_ids": torch.tensor([document])})[0]
        torch.testing.assert_close(joined[start:stop], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*UNABLE, *OTHER_FUNCTIONS])
def test_who_cannot_keep_documents_apart_is_found_out(name, monkeypatch):
    """A running state goes on from one document to the next; some attention is another one."""
    monkeypatch.setattr("conftest.ARCHITECTURES", ARCHITECTURES | OTHER_FUNCTIONS)
    model = tiny(name)
    before = model.config._attn_implementation
    with packing.isolated_documents(model) as able:
        assert not able and model.config._attn_implementation == before
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("share, expected", [(0.0, True), (0.1, False)])
def test_not_even_a_little_of_another_document_is_seen(llama, share, expected):
    """In 16 bits less than what another way of rounding may move."""

    def leak(model, arguments, inputs, outputs):
        if model.config._attn_implementation == packing.NAME:
            before = inputs["input_ids"][0, 0] % 2
            outputs.logits[..., ::2] += share * before * outputs.logits.float().std()

    llama.to(torch.bfloat16).register_forward_hook(leak, with_kwargs=True)
    with packing.isolated_documents(llama) as able:
        assert able == expected


def test_a_document_sees_no_other():
    model, (first, second) = tiny("llama"), some(2)
    after = []
    for before in (first, [5] * len(first)):
        batch = packing.collator(True, 0)([{"documents": [before, second]}])
        del batch["labels"]
        with packing.isolated_documents(model):
            after.append(logits(model, batch)[0, len(first) :])
    assert torch.equal(*after)


def trained(model, tmp_path, name: str, micro_batch: int, sequences: list[dict]):
    """Losses, and the adapter's weights, after RECIPE's steps."""
    with lora.new_lora(model, RECIPE) as wrapped:
        tokenizer, folder = files.tokenizer("tiny-random"), tmp_path / name
        losses, _ = training._train(wrapped, tokenizer, sequences, RECIPE, folder, micro_batch)
        weights = {n: p.detach().clone() for n, p in wrapped.named_parameters() if "lora" in n}
    return losses, weights


@pytest.mark.parametrize("name", [*NAMED, "gpt2"])
def test_joined_padded_and_one_by_one_heal_alike(name, tmp_path, monkeypatch):
    model = tiny(name)
    for module in model.modules():
        if isinstance(module, nn.Dropout):  # gpt2's own
            module.p = 0.0
    sequences = [{"documents": [document]} for document in some(RECIPE.steps * RECIPE.batch)]
    joined = trained(model, tmp_path, "joined", 4, sequences)
    monkeypatch.setattr(packing, "_reads_apart", lambda model: False)
    padded = trained(model, tmp_path, "padded", 4, sequences)
    expected, weights = trained(model, tmp_path, "one by one", 1, sequences)
    for losses, own in (joined, padded):
        assert losses == pytest.approx(expected, abs=2e-4)
        assert own.keys() == weights.keys()
        for key, value in weights.items():
            torch.testing.assert_close(own[key], value, atol=2e-3, rtol=0.02)


class WithoutKeywords(LlamaForCausalLM):
    """As code that comes with a checkpoint: the loss is the mean of what it is given."""

    _supports_attention_backend = False

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
    ):
        return super().forward(input_ids=input_ids, labels=labels)


class WithoutCount(LlamaForCausalLM):
    """Takes any keyword, and does not count: the loss is again a mean."""

    def forward(self, *args, num_items_in_batch=None, **kwargs):
        return super().forward(*args, **kwargs)


class Gradients(TrainerCallback):
    """Of each step, all in one."""

    def __init__(self):
        self.seen = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        gradients = [p.grad.flatten() for p in model.parameters() if p.requires_grad]
        self.seen.append(torch.cat(gradients))


@pytest.mark.parametrize("kind", [LlamaForCausalLM, WithoutKeywords, WithoutCount])
def test_a_step_is_a_mean_over_its_targets_for_every_model(kind, llama, tmp_path):
    """So it is the same in micro-batches of any size, whose targets are not equally many."""
    llama.__class__ = kind
    sequences = [{"documents": [document]} for document in some(RECIPE.steps * RECIPE.batch)]
    losses, gradients = {}, {}
    for size in (8, 4, 2):
        seen = Gradients()
        with lora.new_lora(llama, RECIPE) as wrapped:
            tokenizer, folder = files.tokenizer("tiny-random"), tmp_path / str(size)
            losses[size], _ = training._train(
                wrapped, tokenizer, sequences, RECIPE, folder, size, callbacks=[seen]
            )
        gradients[size] = seen.seen
    for size in (4, 2):
        assert losses[size] == pytest.approx(losses[8], abs=2e-5)
        for gradient, expected in zip(gradients[size], gradients[8], strict=True):
            assert torch.linalg.norm(gradient - expected) < 1e-3 * torch.linalg.norm(expected)


def test_padding_is_counted_and_the_quickest_is_taken():
    sequences = [{"documents": [[1] * n]} for n in (1, 100, 2, 99) * 4]
    read = {size: packing.processed_tokens(sequences, 16, size) for size in (1, 2, 4, 8, 16)}
    assert read == {1: 808, 2: 808, 4: 808, 8: 816, 16: 1600}
    assert packing.quickest(sequences, 16, 16) == 8
    assert packing.quickest(sequences, 16, 4) == 4


# ---- the kernel of a GPU, in the place of which stands what its documentation says -----------


def reference(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale, window_size, enable_gqa
):
    """What `varlen_attn` computes, document by document."""
    assert cu_seq_q.dtype == torch.int32 and max_q == cu_seq_q.diff().max()
    documents = []
    for start, stop in pairwise(cu_seq_q.tolist()):
        q, k, v = (x[start:stop].transpose(0, 1)[None] for x in (query, key, value))
        place = torch.arange(stop - start)
        apart = place[:, None] - place
        seen = (apart >= 0) & (apart <= window_size[0] if window_size[0] >= 0 else True)
        part = scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=enable_gqa)
        documents.append(part[0].transpose(0, 1))
    return torch.cat(documents)


@pytest.mark.parametrize("name", NAMED)
def test_the_kernel_is_asked_for_the_same(name, monkeypatch):
    kernel = packing.varlen_attn
    if kernel:  # this release of PyTorch has it
        signature(kernel).bind(*range(7), scale=1.0, window_size=(-1, 0), enable_gqa=True)
    model, read = tiny(name), some(4)
    batch = packing.collator(True, 0)([{"documents": read}])
    del batch["labels"]
    with packing.isolated_documents(model):
        expected = logits(model, batch)
        monkeypatch.setattr(packing, "varlen_attn", reference)
        monkeypatch.setattr(packing, "_has_kernel", lambda query: True)
        torch.testing.assert_close(logits(model, batch), expected, atol=1e-4, rtol=1e-4)


def of_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False): ...


def of_2_11(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)
): ...


@pytest.mark.parametrize("kernel", [of_2_10, of_2_11])
def test_a_kernel_that_takes_less_is_not_asked(llama, monkeypatch, kernel):
    """The first releases of PyTorch that have it know no scale, or no groups of heads."""
    batch = packing.collator(True, 0)([{"documents": some(4)}])
    del batch["labels"]
    with packing.isolated_documents(llama):
        expected = logits(llama, batch)
    packing._tried.clear()
    monkeypatch.setattr(packing, "varlen_attn", kernel)
    monkeypatch.setattr(packing, "_has_kernel", lambda query: True)
    with packing.isolated_documents(llama) as able:
        assert able
        assert torch.equal(logits(llama, batch), expected)
