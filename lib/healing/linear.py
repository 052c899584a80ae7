"""Linear maps in place of a block, by least squares: no training.

x is the state before the cut, y the state after it, rows (D,). The plain cut hands x on, as if
y = x. A map hands on x + z A, where z is either x, or m: what the FFN of the layer before the cut
adds to the stream. That one can be folded into the FFN's last projection (ReplaceMe, arXiv
2505.02819). A = 0 is the plain cut.

A minimises  sum over tokens of w |y - x - z A|^2  +  ridge |A|^2,  w = 1 / |y|^2: so the normal
equations  (Z'WZ + ridge) A = Z'W(Y - X).  The weights count errors relative to a state, as the next
layer's norm does; without them the first token, whose state may be 100 times as long, decides.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import product
from time import perf_counter

import torch
from torch import nn

from lib.blocks import Block
from lib.healing import lora
from lib.models.decoder import residual_stream
from lib.models.layers import only_layers

RIDGES = tuple(10.0**power for power in range(-8, 4))  # in units of the mean of z^2
HELD_OUT = 4  # every fourth calibration text only chooses the ridge
LOUD = 64  # times what an FFN adds, to see whether the stream gets it as it is
STREAM, FFN = "state", "FFN"  # what z is


@dataclass(frozen=True)
class Moments:
    """Weighted sums over tokens, fp64: Z'WZ and Z'W(Y - X), both (D, D), and w |y - x|^2."""

    inputs: torch.Tensor
    both: torch.Tensor
    change: float

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.inputs + other.inputs, self.both + other.both, self.change + other.change
        )

    def error(self, a: torch.Tensor) -> float:
        """The part of w |y - x|^2 that a map leaves: 1 for the plain cut, 0 for a perfect map."""
        gain = (a * (2 * self.both - self.inputs @ a)).sum()
        return float(self.change - gain) / self.change if self.change else 0.0


def moments(before: torch.Tensor, after: torch.Tensor, inputs: torch.Tensor) -> Moments:
    """Of tokens x, y and z, each (N, D)."""
    x, y, z = before.double(), after.double(), inputs.double()
    change = y - x
    weighted = z / y.square().sum(1, keepdim=True)
    relative = change.square().sum(1) / y.square().sum(1)
    return Moments(z.T @ weighted, weighted.T @ change, float(relative.sum()))


# ---- solving -------------------------------------------------------------------------------


KINDS = {"full": STREAM, "folded": FFN}  # of maps: what z is


def solution(of: Moments, ridge: float) -> torch.Tensor:
    """A of the normal equations, (D, D). ridge: as it stands in them."""
    identity = torch.eye(len(of.inputs)).to(of.inputs)
    return torch.linalg.solve(of.inputs + ridge * identity, of.both)


def solved(fit: Moments, held: Moments) -> tuple[torch.Tensor, float, float]:
    """A of all calibration texts, its ridge (in units of the mean of z^2), its held-out error.

    The ridge is the one whose map of the texts of `fit` leaves least of those of `held`.
    """

    def at(ridge: float, of: Moments) -> torch.Tensor:
        return solution(of, ridge * float(of.inputs.diagonal().mean()))

    errors = {ridge: held.error(at(ridge, fit)) for ridge in RIDGES}
    ridge = min(errors, key=errors.get)
    return at(ridge, fit + held), ridge, errors[ridge]


# ---- a block with a map in its place -------------------------------------------------------


@dataclass(frozen=True, order=True)
class Mapped(Block):
    """A block with the map `name` (a key of KINDS) in its place. change: A, (D, D), fp32."""

    name: str = ""
    change: torch.Tensor = field(default=None, compare=False, repr=False)
    added: list = field(default_factory=list, compare=False, repr=False)  # m, of a map of it

    def across(self, states: Mapping[int, torch.Tensor], is_text_start: bool) -> torch.Tensor:
        """x + z A."""
        state = states[self.start]
        inputs = self.added[0] if self.added else state
        return (state.float() + inputs.float() @ self.change).to(state.dtype)


@contextmanager
def reading_ffn(model, blocks: Iterable[Block]) -> Iterator[None]:
    """While active, those of `blocks` that map what an FFN adds note it in every forward pass."""
    with ExitStack() as hooks:
        for block in blocks:
            if not isinstance(block, Mapped) or KINDS[block.name] != FFN:
                continue

            def note(module, args, output, block=block):
                block.added[:] = [output.clone()]  # Falcon adds to it in place

            module = projection(model, block.start - 1)
            hooks.enter_context(module.register_forward_hook(note))
        yield


@torch.no_grad()
def fold(model, block: Block, change: torch.Tensor, dtype: torch.dtype | None = None) -> None:
    """Make the layer before `block` give m (1 + A) for m, by the weights of its last projection.

    After `pruning.dropped` that is an ordinary checkpoint. dtype: that the weights are rounded to,
    by default their own. Raises ValueError for weights packed in 4 bits.
    """
    module = projection(model, block.start - 1)
    if not module.weight.is_floating_point():
        raise ValueError("A map cannot be folded into weights packed in 4 bits: use device='cpu'.")
    whole = torch.eye(len(change)) + change.cpu()
    for parameter in module.parameters():
        outputs_first = isinstance(module, nn.Linear) and parameter.ndim == 2  # Conv1D: last
        old = parameter.cpu().float()
        new = whole.T @ old if outputs_first else old @ whole
        parameter.copy_(new.to(dtype or parameter.dtype))


def attach(model, block: Block, change: torch.Tensor) -> None:
    """Make the layer before `block` give m (1 + A), beside weights that stay as they are, packed.

    A hook does it: what is saved knows nothing of it.
    """

    def changed(module, args, output):
        return output + (output.float() @ change.to(output.device)).to(output.dtype)

    projection(model, block.start - 1).register_forward_hook(changed)


# ---- fitting -------------------------------------------------------------------------------


def fitted(
    model, block: Block, names: Iterable[str], batches: Iterable[dict]
) -> dict[str, tuple[Mapped, dict]]:
    """Return the maps across one block by name, as `fitted_all`."""
    return fitted_all(model, [block], names, batches)[block]


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
    fit, held = _gathered(model, blocks, {KINDS[name] for name in names}, batches)
    seconds_gathering = perf_counter() - start
    maps = {block: {} for block in blocks}
    for block, name in product(blocks, names):
        part = block, KINDS[name]
        if part in fit:
            start = perf_counter()
            change, ridge, error = solved(fit[part], held[part])
            seconds = seconds_gathering + perf_counter() - start
            facts = {"parameters": change.numel(), "ridge": ridge, "error": error}
            mapped = Mapped(block.start, block.size, name, change.float())
            maps[block][name] = mapped, facts | {"seconds": seconds}
    return maps


@torch.inference_mode()
def _gathered(
    model, blocks: Sequence[Block], kinds: Iterable[str], batches: Iterable[dict]
) -> tuple[dict, dict]:
    """The moments of the texts to fit on, and of those held out, for each block and z there is.

    Only the layers up to the end of the last block read the texts.
    """
    fit, held = {}, {}
    states, num_read = {}, 0
    depths = {depth for block in blocks for depth in (block.start, block.stop)}
    with ExitStack() as hooks:
        for start in {block.start for block in blocks if FFN in kinds}:
            with suppress(ValueError):

                def note(module, args, output, start=start):
                    states[start, FFN] = output.clone()  # as above

                hooks.enter_context(projection(model, start - 1).register_forward_hook(note))
        hooks.enter_context(only_layers(model, range(max(depths))))
        hooks.enter_context(residual_stream(model, states.__setitem__, at=sorted(depths)))
        for batch in batches:
            model.get_decoder()(input_ids=batch["input_ids"].to(model.device), use_cache=False)
            mask = batch["attention_mask"].bool().to(model.device)
            held_out = (num_read + torch.arange(len(mask)))[:, None] % HELD_OUT == 0
            num_read += len(mask)
            for block, (part, rows) in product(blocks, ((fit, ~held_out), (held, held_out))):
                real = mask & rows.to(mask.device)
                x, y = states[block.start], states[block.stop]
                for kind, z in {STREAM: x, FFN: states.get((block.start, FFN))}.items():
                    if z is not None and real.any() and kind in kinds:
                        new = moments(x[real], y[real], z[real])
                        of = block, kind
                        part[of] = part[of] + new if of in part else new
    return fit, held


def projection(model, l: int) -> nn.Module:
    """The last FFN projection of layer l, whose output is added to the stream as it is.

    Raises ValueError where there is none: before the first layer, with experts, with a norm after
    the FFN.
    """
    if l < 0:
        raise ValueError("There is no layer before the cut.")
    ids = torch.arange(8, device=model.device)[None] + 3
    outputs, streams = [], []
    with only_layers(model, range(l + 1)), torch.inference_mode():
        module = model.get_submodule(lora.ffn_projections(model, l)[-1])
        for scale in (1, LOUD):  # so loud that rounding of the stream does not hide it

            def scaled(module, args, output, scale=scale):
                outputs.append(output.float())
                return scale * output

            with (
                module.register_forward_hook(scaled),
                residual_stream(model, lambda _, x: streams.append(x.float()), at=[l + 1]),
            ):
                model.get_decoder()(input_ids=ids, use_cache=False)
    added, (before, after) = outputs[0], streams
    expected = (LOUD - 1) * added
    if (after - before - expected).abs().median() > 0.05 * expected.abs().median():
        raise ValueError(f"Layer {l} does not add what its FFN's last projection gives as it is.")
    return module
