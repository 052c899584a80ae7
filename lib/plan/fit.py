"""How many layers to drop so that a model fits: `python -m lib.plan.fit --model llama-2-7b --gb 8`.

From the configuration alone: nothing is loaded or downloaded. The block is named where a map of
the model is at hand. Imports neither torch nor transformers.
"""

import argparse
import json
import sys
from dataclasses import dataclass

from lib import paths
from lib.blocks import BlockDistances, similarity_block, simple_block
from lib.models import registry
from lib.models.shapes import Shape
from lib.plan import assumptions, costs
from lib.results.archive import stored

TOKENS = 2048  # of the prompt and the answer, whose keys and values are held
SAFE, EDGE = 0.2, 0.55  # of the layers: between them the paper's models lost their answers
CARD = assumptions.GPUS["a100-40"]  # any GPU: 16-bit weights, NF4 stays packed


@dataclass(frozen=True)
class Fit:
    """The fewest layers to drop so that a model fits, and its bytes then; None: no number does."""

    quantization: str | None
    dropped: int | None
    bytes: float


def fit(shape: Shape, memory: float, tokens: int = TOKENS) -> list[Fit]:
    """For 16-bit weights and for NF4, the fewest layers to drop to fit into `memory` bytes."""
    found = []
    for quantization in (None, "nf4"):
        sizes = [needed(shape, n, quantization, tokens) for n in range(shape.num_layers, 0, -1)]
        least = next((n for n, size in enumerate(sizes) if size <= memory), None)
        found.append(Fit(quantization, least, sizes[-1 if least is None else least]))
    return found


def needed(shape: Shape, layers: int, quantization: str | None, tokens: int) -> float:
    """Bytes of the weights, of the keys and values of `tokens` tokens, and of what one reads."""
    weights = costs.weights(shape, layers, quantization, CARD)
    return weights + 2 * shape.key * CARD.element * layers * tokens + 4 * shape.vocab_size


def distances(name: str) -> BlockDistances | None:
    """A map of a model: from the results, else from a recorded run, else its recorded map."""
    for folder in (paths.RESULTS, *sorted(p for p in paths.RECORDED.glob("*") if p.is_dir())):
        for record in stored(folder, "similarity"):
            if record["params"]["model"] == name:
                return BlockDistances.stored(record["values"])
    recorded = paths.RECORDED / f"{name}.json"
    if recorded.exists():
        record = json.loads(recorded.read_text(encoding="utf-8"))
        return BlockDistances.stored(record | {"num_sequences": record["sequences"]})
    return None


def table(name: str, gigabytes: float, tokens: int = TOKENS) -> str:
    """What to drop, as text. Raises ValueError for a model or a size that cannot be."""
    shape = registry.shape(name)
    if shape is None:
        raise ValueError(f"The sizes of {name} are not known without the hub: give a local folder.")
    if not gigabytes > 0 or tokens < 1:
        raise ValueError(f"GB and TOKENS must be above 0, not {gigabytes:g} and {tokens}.")
    found, map_ = fit(shape, gigabytes * 1e9, tokens), distances(name)
    if all(f.dropped is None for f in found):
        raise ValueError(
            f"{name} does not fit into {gigabytes:g} GB: one layer of {shape.num_layers} in 4 bits "
            f"needs {found[-1].bytes / 1e9:.2f} GB, most of it outside the layers."
        )
    lines = [f"{name} in {gigabytes:g} GB, with {tokens} tokens ({shape.num_layers} layers):"]
    lines += [_line(f, shape.num_layers, map_) for f in found]
    if map_ is None:
        lines.append(f"No map of {name} is at hand: notebook 01 finds its most similar block.")
    return "\n".join(lines)


def _line(found: Fit, layers: int, map_: BlockDistances | None) -> str:
    told = f"  {found.quantization or '16 bits':8}"
    if found.dropped is None:
        return f"{told} does not fit with any number of layers dropped"
    share = found.dropped / layers
    told += f" drop {found.dropped:3} ({share:.0%}), {found.bytes / 1e9:.2f} GB"
    if not found.dropped:
        return f"{told}: it fits whole"
    blocks = {"simple": simple_block(layers, found.dropped)}
    if map_ is not None:
        blocks = {"most similar": similarity_block(map_, found.dropped)} | blocks
    named = ", ".join(f"{how} range({b.start}, {b.stop})" for how, b in blocks.items())
    whose = "the paper's models" if share > EDGE else "some of the paper's models"
    risk = f"; {whose} had lost their answers here" if share > SAFE else ""
    return f"{told}: {named}{risk}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m lib.plan.fit", description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--gb", type=float, required=True, help="memory, in 10^9 bytes")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="prompt and answer together")
    options = parser.parse_args(argv)
    try:
        print(table(options.model, options.gb, options.tokens))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
