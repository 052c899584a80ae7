"""Linear maps in place of a block, by least squares: no training.

x is the state before the cut, y the state after it, rows (D,). The plain cut hands x on, as if
y = x. A map hands on x + z A, where z is either x, or m: what the FFN of the layer before the cut
adds to the stream. That one can be folded into the FFN's last projection (ReplaceMe, arXiv
2505.02819). A = 0 is the plain cut.

A minimises  sum over tokens of w |y - x - z A|^2  +  ridge |A|^2,  w = 1 / |y|^2: so the normal
equations  (Z'WZ + ridge) A = Z'W(Y - X).  The weights count errors relative to a state, as the next
layer's norm does; without them the first token, whose state may be 100 times as long, decides.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from time import perf_counter

import torch
from torch import nn

from ..blocks import Block
from ..models.decoder import decoder_config, residual_stream, run_decoder, sample_tokens
from ..models.layers import only_layers
from . import lora

RIDGES = tuple(10.0**power for power in range(-8, 4))  # in units of the mean of z^2
HELD_OUT = 4  # every fourth calibration text chooses the ridge, before all texts are fitted
PROBE = 8  # tokens that a layer reads, to show what it adds to the stream
LOST = 1e-3  # of what was added there, at most
LOST_IN_16_BITS = 0.02  # rounding to bf16 loses 0.004 in a layer of SmolLM2 or Qwen2.5
STREAM, FFN = "state", "FFN"  # what z is


@dataclass(frozen=True)
class Moments:
    """Weighted sums over tokens, fp64: Z'WZ and Z'W(Y - X), both (D, D), and w |y - x|^2."""

    gram: torch.Tensor
    cross: torch.Tensor
    residual_norm: float

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.gram + other.gram,
            self.cross + other.cross,
            self.residual_norm + other.residual_norm,
        )

    def error(self, a: torch.Tensor) -> float:
        """The part of w |y - x|^2 that a map leaves: 1 for the plain cut, 0 for a perfect map."""
        if not self.residual_norm:
            return 0.0
        gain = a * (2 * self.cross - self.gram @ a)
        return (self.residual_norm - float(gain.sum())) / self.residual_norm


def moments(before: torch.Tensor, after: torch.Tensor, inputs: torch.Tensor) -> Moments:
    """Of tokens x, y and z, each (N, D)."""
    x, y, z = before.double(), after.double(), inputs.double()
    change = y - x
    square_norms = y.square().sum(1)
    weighted = z / square_norms[:, None]
    relative = change.square().sum(1) / square_norms
    return Moments(z.T @ weighted, weighted.T @ change, float(relative.sum()))


# ---- solving -------------------------------------------------------------------------------


KINDS = {"full": STREAM, "folded": FFN}  # of maps: what z is


def solve_map(sums: Moments, ridge: float) -> torch.Tensor:
    """A of the normal equations, (D, D). ridge: in units of the mean of z^2."""
    ridge = ridge * float(sums.gram.diagonal().mean())
    identity = torch.eye(len(sums.gram)).to(sums.gram)
    return torch.linalg.solve(sums.gram + ridge * identity, sums.cross)


def solve_with_ridge_search(fit: Moments, held: Moments) -> tuple[torch.Tensor, float, float]:
    """A of all calibration texts, its ridge, its held-out error.

    The ridge is the one whose map of the texts of `fit` leaves least of those of `held`.
    """
    errors = {ridge: held.error(solve_map(fit, ridge)) for ridge in RIDGES}
    ridge = min(errors, key=errors.get)
    return solve_map(fit + held, ridge), ridge, errors[ridge]


# ---- a block with a map in its place -------------------------------------------------------


class FFNOutput:
    """m of the last forward pass, (B, T, D), which `reading_ffn` notes."""

    m: torch.Tensor


@dataclass(frozen=True, order=True)
class Mapped(Block):
    """A block with the map `name` (a key of KINDS) in its place. change: A, (D, D), fp32."""

    name: str
    change: torch.Tensor = field(compare=False, repr=False)
    ffn: FFNOutput = field(default_factory=FFNOutput, compare=False, repr=False)

    def __eq__(self, other) -> bool:
        """Maps are the same if they are of one block and name, and have the very same A."""
        if not isinstance(other, Mapped) or self.change is not other.change:
            return False
        return super().__eq__(other) and self.name == other.name

    def input_after_cut(self, state: torch.Tensor) -> torch.Tensor:
        """x + z A. A map of m needs `reading_ffn`: without it there is no m, an AttributeError."""
        z = self.ffn.m if KINDS[self.name] == FFN else state
        change = z.float() @ self.change
        return (state.float() + change).to(state.dtype)


@contextmanager
def reading_ffn(model, blocks: Iterable[Block]) -> Iterator[None]:
    """While active, those of `blocks` that map what an FFN adds note it in every forward pass."""
    with ExitStack() as hooks:
        for block in blocks:
            if isinstance(block, Mapped) and KINDS[block.name] == FFN:
                note = partial(setattr, block.ffn, "m")
                hooks.enter_context(_each_ffn_output(model, block.start, note))
        yield


def _each_ffn_output(model, start: int, note: Callable[[torch.Tensor], None]):
    """Hook: call note(m) in every forward pass. Raises ValueError as `projection`."""

    def after(module, args, output):
        note(output.clone())  # Falcon adds to it in place

    return projection(model, start - 1).register_forward_hook(after)


@torch.no_grad()
def fold(model, block: Block, change: torch.Tensor) -> None:
    """Make the layer before `block` give m (1 + A) for m, by the weights of its last projection.

    After `pruning.dropped` that is an ordinary checkpoint. Raises ValueError for weights packed in
    4 bits.
    """
    module = projection(model, block.start - 1)
    if not module.weight.is_floating_point():
        raise ValueError("A map cannot be folded into weights packed in 4 bits: use device='cpu'.")
    whole = torch.eye(len(change)) + change.cpu()
    for parameter in module.parameters():
        outputs_first = isinstance(module, nn.Linear) and parameter.ndim == 2  # Conv1D: last
        old = parameter.cpu().float()
        new = whole.T @ old if outputs_first else old @ whole
        parameter.copy_(new.to(parameter.dtype))


def add_map_hook(model, block: Block, change: torch.Tensor) -> None:
    """Make the layer before `block` give m (1 + A), beside weights that stay as they are, packed.

    Call it within `pruning.dropped`: it does nothing while the block is back, and is not saved with
    the model.
    """
    config = decoder_config(model)
    num_left = config.num_hidden_layers

    def changed(module, args, output):
        if config.num_hidden_layers > num_left:
            return output
        return output + (output.float() @ change.to(output.device)).to(output.dtype)

    projection(model, block.start - 1).register_forward_hook(changed)


# ---- fitting -------------------------------------------------------------------------------


def fitted_all(
    model, blocks: Sequence[Block], names: Iterable[str], batches: Iterable[dict]
) -> dict[Block, dict[str, tuple[Mapped, dict]]]:
    """Return the maps across each of `blocks` by name (a key of KINDS), with cost and quality.

    The texts are read once for all. batches: calibration texts as of
    `similarity.calibration_batches`. With a map come its parameters (how many numbers), seconds (of
    the pass and of solving), ridge and error (held out; the plain cut has 1). A map of what the FFN
    adds is missing where `projection` finds none.
    """
    start = perf_counter()
    fit, held = _accumulate_moments(model, blocks, {KINDS[name] for name in names}, batches)
    seconds_gathering = perf_counter() - start
    maps = {block: {} for block in blocks}
    for block, name in product(blocks, names):
        part = block, KINDS[name]
        if part in fit:
            start = perf_counter()
            change, ridge, error = solve_with_ridge_search(fit[part], held[part])
            seconds = seconds_gathering + perf_counter() - start
            facts = {"parameters": change.numel(), "ridge": ridge, "error": error}
            mapped = Mapped(block.start, block.size, name, change.float())
            maps[block][name] = mapped, facts | {"seconds": seconds}
    return maps


@torch.inference_mode()
def _accumulate_moments(
    model, blocks: Sequence[Block], sources: set[str], batches: Iterable[dict]
) -> tuple[dict, dict]:
    """The moments of the texts to fit on, and of those held out, by block and what z is."""
    fit, held, num_read = {}, {}, 0
    with _noted_states(model, blocks, sources) as states:
        for batch in batches:
            run_decoder(model, batch["input_ids"].to(model.device))
            is_token = batch["attention_mask"].bool()
            # texts are numbered across batches, and each is wholly fitted on or wholly held out
            numbers = num_read + torch.arange(len(is_token))
            is_held = (numbers % HELD_OUT == 0)[:, None]
            num_read += len(is_token)
            for block, source in product(blocks, sources):
                x, y = states[block.start], states[block.stop]
                z = x if source == STREAM else states.get((block.start, FFN))
                if z is None:  # no map of it can be folded in
                    continue
                # sums, not states: they are as large for 10 texts as for 10,000
                for sums, mask in ((fit, is_token & ~is_held), (held, is_token & is_held)):
                    tokens, key = mask.to(model.device), (block, source)
                    if tokens.any():
                        new = moments(x[tokens], y[tokens], z[tokens])
                        sums[key] = sums[key] + new if key in sums else new
    return fit, held


@contextmanager
def _noted_states(model, blocks: Sequence[Block], sources: set[str]) -> Iterator[dict]:
    """While active, each forward pass notes x^(l) at the ends of blocks, and (l, FFN): m before l.

    Only the layers up to the end of the last block read the texts.
    """
    states = {}
    depths = {depth for block in blocks for depth in (block.start, block.stop)}
    with ExitStack() as hooks:
        for start in {block.start for block in blocks if FFN in sources}:
            with suppress(ValueError):
                note = partial(states.__setitem__, (start, FFN))
                hooks.enter_context(_each_ffn_output(model, start, note))
        hooks.enter_context(only_layers(model, range(max(depths))))
        hooks.enter_context(residual_stream(model, states.__setitem__, at=sorted(depths)))
        yield states


def projection(model, l: int) -> nn.Module:
    """The last FFN projection of layer l, whose output is added to the stream as it is.

    Raises ValueError where there is none: before the first layer, with experts, with a norm after
    the FFN or the sum, with a factor on what is added.
    """
    if l < 0:
        raise ValueError("There is no layer before the cut.")
    with only_layers(model, [l]):
        try:
            path = lora.ffn_projections(model)[-1]
        except ValueError:
            raise ValueError(f"Layer {l} has no linear FFN, or experts.") from None
        module = model.get_submodule(path)
        if not _is_added_as_it_is(model, module):
            raise ValueError(
                f"Layer {l} does not add what its FFN's last projection gives as it is: a map of "
                "that would be another one once it is folded in."
            )
    return module


def can_fold(model, l: int) -> bool:
    """Return whether a map can be folded into layer l: whether `projection` finds one."""
    try:
        projection(model, l)
    except ValueError:
        return False
    return True


@torch.no_grad()
def _is_added_as_it_is(model, module: nn.Module) -> bool:
    """Return whether the state after a model's only layer changes as the output of `module` does.

    It reads a few tokens twice. The second time a random vector is added to what `module` gives, as
    long as the state: (1, tokens, D).
    """
    ids, states = sample_tokens(model, PROBE)[None], []

    def read():
        with residual_stream(model, lambda l, x: states.append(x.float()), at=[1]):
            run_decoder(model, ids)

    read()
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(states[0].shape, generator=draw).to(states[0])
    added = direction * states[0].square().mean(-1, keepdim=True).sqrt()

    def add(module, args, output):
        return output + added.to(output.dtype).view_as(output)

    with module.register_forward_hook(add):
        read()
    lost = (states[1] - states[0] - added).norm() / added.norm()
    return bool(lost < (LOST_IN_16_BITS if model.dtype.itemsize == 2 else LOST))
