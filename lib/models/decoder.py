"""The parts of a decoder, reached the same way for every HF architecture."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import nn
from transformers import Cache
from transformers.modeling_outputs import MoEModelOutputWithPastAndCrossAttentions

from .registry import ModelError


def get_decoder(model) -> nn.Module:
    """The decoder of a model: embeddings, layers and final norm (of a multimodal model, those of
    its text part). The only place that asks a model for it."""
    return model.get_decoder()


def run_decoder(model, ids: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
    """Read tokens (B, T) without lm_head; return the states after the final norm, (B, T, D).

    cache: keys and values of the tokens before, to which those of `ids` are added.
    """
    decoder, options = get_decoder(model), {} if cache is None else {"cache": cache}
    return decoder(input_ids=ids, use_cache=bool(options), **options).last_hidden_state


def decoder_config(model):
    """The configuration that the decoder reads (of a multimodal model, its text part)."""
    try:
        return get_decoder(model).config
    except AttributeError:
        raise ModelError(
            f"{type(model).__name__} calls something else its decoder, so its layers are not found."
        ) from None


def window(config) -> int | None:
    """How many tokens a model reads at most, if its configuration says so."""
    text = config.get_text_config(decoder=True)
    exact = getattr(text, "exact_length", None)  # of `qwen1`
    return exact or getattr(text, "max_position_embeddings", None)


def decoder_layers(model) -> nn.ModuleList:
    """The list of decoder layers, as long as the configuration says, of any HF decoder."""
    return getattr(get_decoder(model), layers_attribute(model))


def layers_attribute(model) -> str:
    """The name of the decoder's list of layers (`layers`, `h`, `blocks`, …).

    A list of modules without weights (rotary embeddings, say) is none.
    """
    length = decoder_config(model).num_hidden_layers
    lists = [
        name
        for name, child in get_decoder(model).named_children()
        if isinstance(child, nn.ModuleList)
        and len(child) == length
        and next(child.parameters(), None) is not None
    ]
    if len(lists) != 1:
        raise ModelError(
            f"What transformers takes for the decoder of {type(model).__name__} has not one "
            f"uniform list of {length} layers."
        )
    return lists[0]


def sample_tokens(model, count: int) -> torch.Tensor:
    """The token ids, (count,), that a model is tried with, on its device. They mean nothing."""
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    return torch.arange(1, count + 1).mul(7).remainder(vocabulary).to(model.device)


def check_tokens(model, sequences: Iterable[Sequence[int]]) -> None:
    """Raise ValueError for a token that the model has no embedding of."""
    known = len(model.get_input_embeddings().weight)
    highest = max((max(tokens) for tokens in sequences if len(tokens)), default=0)
    if highest >= known:
        raise ValueError(
            f"The tokenizer gives token {highest}, and the model has embeddings of 0 to "
            f"{known - 1}: take its own tokenizer, or save the model after "
            "`model.resize_token_embeddings(len(tokenizer))`."
        )


@contextmanager
def residual_stream(model, visit: Callable[[int, torch.Tensor], None], at: Sequence | None = None):
    """While active, every forward calls visit(l, x) with x^(l), shape (B, T, D), for l in `at`.

    x^(l) is the input to layer l, x^(L) the output of the last layer before the final norm
    (`hidden_states[-1]` of HF is after it). By default all l = 0 … L.
    """
    layers = decoder_layers(model)
    with ExitStack() as hooks:
        for l in range(len(layers) + 1) if at is None else at:

            def look(x, l=l):
                visit(l, x)

            hooks.enter_context(state_hook(layers, l, look))
        yield


def state_hook(layers: nn.ModuleList, l: int, change: Callable, first: bool = False):
    """Hook: call change(x) with x^(l), (B, T, D), in every forward.

    If it returns a state, that one goes on in place of x. first: before the layer's other hooks.
    """

    def before(module, args, kwargs):
        new = change(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    def after(module, args, output):
        if isinstance(output, torch.Tensor):
            return change(output)
        new = change(output[0])
        return None if new is None else (new, *output[1:])

    if l < len(layers):
        return layers[l].register_forward_pre_hook(before, with_kwargs=True, prepend=first)
    return layers[-1].register_forward_hook(after)


def logits(model, states: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) of final states (N, D), by the model's own forward.

    The decoder hands out `states` instead of computing, so that whatever the architecture does
    around its lm_head (bias, soft-capping, scaling) is done, for these states only.
    """
    output = MoEModelOutputWithPastAndCrossAttentions(last_hidden_state=states[None])
    placeholder = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
    with mock.patch.object(get_decoder(model), "forward", lambda *args, **kwargs: output):
        return model(input_ids=placeholder, use_cache=False).logits[0]


def fp32_target_logits(model, states: torch.Tensor, target_ids: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) of final states (N, D) in fp32; those of `target_ids` (N, C) never rounded.

    In bf16 a logit of 16 is known to 0.06 only, and the best of several choices may tie. So the
    products of the target tokens are made in fp32. The other logits have been rounded to the
    model's dtype, and only enter the normalisation. What the architecture does to logits
    (soft-capping, scaling), it does to each alike.
    """
    rounded = logits(model, states).float()
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.dtype == torch.float32:
        return rounded

    def target_products(x):
        weight = head.weight[target_ids].float()
        products = torch.einsum("bnd,ncd->bnc", x.float(), weight)
        return products if head.bias is None else products + head.bias[target_ids].float()

    with mock.patch.object(head, "forward", target_products):
        exact = logits(model, states).float()
    return rounded.scatter_(1, target_ids, exact)
