"""Figures 1a and 1b: the way through the method, and one cut drawn from a Block."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from lib.profiles import Profile
from lib.pruning import Block
from lib.style import STYLE, save_figure

STEPS = [
    ("measure", "one forward pass over C4:\nangular distance d(l, l+n)\nof every block"),
    ("choose", "for n layers to drop:\nl*(n) = argmin over l\nof d(l, l+n)"),
    ("cut", "drop layers l* … l*+n-1,\nfeed the input of layer l*\nto layer l*+n"),
    ("heal", "short QLoRA fine-tune\non C4 (optional)"),
    ("evaluate", "question answering\nand C4 loss against\nthe fraction dropped"),
]


def figure_1a(profile: Profile) -> Figure:
    """Figure 1a: the flow of the method, from an unpruned model to its pruning curve."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(11, 2))
        for i, (title, text) in enumerate(STEPS):
            axes.add_patch(FancyBboxPatch((i * 2.4, 0), 1.9, 1, boxstyle="round,pad=0.08", fc="w"))
            axes.text(i * 2.4 + 0.95, 0.85, title, ha="center", weight="bold")
            axes.text(i * 2.4 + 0.95, 0.4, text, ha="center", va="center", size=8)
            if i:
                axes.annotate(
                    "", (i * 2.4 - 0.1, 0.5), (i * 2.4 - 0.4, 0.5), arrowprops={"arrowstyle": "->"}
                )
        axes.set(xlim=(-0.2, 2.4 * len(STEPS) - 0.3), ylim=(-0.2, 1.2))
        axes.axis("off")
        steps = pd.DataFrame(STEPS, columns=["step", "what"])
        return save_figure(figure, steps, "figure_1a", profile)


def figure_1b(block: Block, num_layers: int, profile: Profile) -> Figure:
    """Figure 1b: the layers of a model, those of `block` crossed out, and the new connection."""
    kept = set(block.kept(num_layers))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(max(6, 0.36 * num_layers), 1.9))
        for l in range(num_layers):
            stays = l in kept
            shade = "#cfe3f5" if stays else "#eeeeee"
            axes.add_patch(Rectangle((l, 0), 0.8, 1, fc=shade, ec="black" if stays else "grey"))
            axes.text(l + 0.4, 0.5, str(l), ha="center", va="center", size=7)
            if not stays:
                axes.plot([l, l + 0.8], [0, 1], color="tab:red", lw=1)
        arrow = FancyArrowPatch(
            (block.start - 0.1, 1.05),
            (block.stop + 0.3, 1.05),
            connectionstyle="arc3,rad=-0.25",
            arrowstyle="->",
            mutation_scale=12,
        )
        axes.add_patch(arrow)
        middle = (block.start + block.stop) / 2
        after = f"layer {block.stop}" if block.stop < num_layers else "the final norm"
        text = f"x^({block.start}), the input of layer {block.start}, goes to {after}"
        axes.text(middle, 1.15 + 0.07 * block.size, text, ha="center", va="bottom", size=8)
        axes.set(
            xlim=(-0.6, num_layers + 0.6),
            ylim=(-0.2, 1.5 + 0.08 * block.size),
            title=f"Block(start={block.start}, size={block.size}) of {num_layers} layers",
        )
        axes.axis("off")
        drawn = pd.DataFrame({"layer": range(num_layers)})
        drawn["kept"] = drawn.layer.isin(kept)
        drawn["new_index"] = drawn.layer.map({old: new for new, old in enumerate(sorted(kept))})
        drawn["new_index"] = drawn.new_index.astype("Int64")
        return save_figure(figure, drawn, "figure_1b", profile)
