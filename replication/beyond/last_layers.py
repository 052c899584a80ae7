"""Why the last layer? The deepest layers are dropped, but the last one, two or three are kept.

Notebook 13. The paper's simple strategy keeps the last layer; an early exit keeps none. The C4 loss
of each cut is in the damage map. And is it the attention sink? There the last layer is kept, and
reads the first token's state as the whole model has it (`FirstTokenPatched`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from lib.blocks import Block
from lib.models import registry
from replication.beyond.letters import FORMS
from replication.beyond.panels import line
from replication.figures.style import (
    STYLE,
    WIDTH,
    colour,
    finished,
    nothing_measured,
)
from replication.measure import request
from replication.measure.experiments import unpruned
from replication.measure.request import Request, score
from replication.profiles import Profile

KEPT = {
    0: "none kept (early exit)",
    1: "last one kept (simple)",
    2: "last two kept",
    3: "last three kept",
}
PATCHED = "last one kept, first token patched"
DEEPEST = 0.3  # of the layers
PANELS = {  # columns questions and form, and what the panel is called
    ("mmlu", "letters"): "MMLU\nby letter",
    ("arc_easy", "letters"): "ARC-Easy\nby letter",
    ("arc_easy", "content"): "ARC-Easy\nby content",
}
LOOKS = {
    KEPT[0]: (colour("early exit"), "o", "-"),
    KEPT[1]: (colour("simple"), "s", "-"),
    KEPT[2]: ("0.6", "^", "-"),
    KEPT[3]: ("0.2", "v", "-"),
    PATCHED: ("black", "x", "none"),
}


@dataclass(frozen=True, order=True)
class FirstTokenPatched(Block):
    """A block behind which the first token goes on as in the whole model; the others are cut."""

    @property
    def reads(self) -> tuple[int, ...]:
        return self.start, self.stop

    def across(self, states: Mapping, is_text_start: bool):
        """x^(start), of a text's first token x^(stop)."""
        state = states[self.start]
        if is_text_start:
            state = state.clone()
            state[:, 0] = states[self.stop][:, 0]
        return state


request.BLOCKS["patched"] = FirstTokenPatched


def last_layers(name: str, distances, profile: Profile) -> list[Request]:
    """Return the questions after each of these cuts, of the main model; columns questions and form.

    At every second size up to DEEPEST; MMLU as in notebook 02, ARC-Easy as in `letters.forms`, and
    with the first token patched.
    """
    if name != profile.main_model:
        return []
    layers, few_shot = distances.num_layers, profile.with_prompt(profile.mmlu_shots)
    requested = []
    for questions, form in PANELS:
        of_questions = profile if questions == "mmlu" else few_shot
        task, labels = FORMS[questions][form], {"questions": questions, "form": form}
        requested += unpruned(name, of_questions, [task], **labels)
        for kept, strategy in KEPT.items():
            for block in blocks(layers, kept, sizes(layers, profile)):
                where = {"fraction": block.size / layers, "strategy": strategy}
                where |= labels | {"treatment": "unhealed"}
                cut = score(name, of_questions, task, block, **where)
                requested.append(cut)
                if kept == 1 and questions == "arc_easy":
                    requested.append(patched(cut))
    return requested


def patched(cut: Request) -> Request:
    """Return the score of the same block where the first token's state goes on as in the whole
    model."""
    params = cut.params | {"patched": "first token"}
    return Request(cut.kind, params, cut.labels | {"strategy": PATCHED})


def sizes(layers: int, profile: Profile) -> list[int]:
    """Return numbers of layers to drop: every second one, up to DEEPEST of all, at least 1."""
    return [n for n in profile.block_sizes(layers)[::2] if n <= max(1, DEEPEST * layers)]


def blocks(layers: int, kept: int, sizes: list[int]) -> list[Block]:
    """Return the blocks of `sizes` that end before the last `kept` layers, where a layer before
    stays."""
    return [Block(layers - kept - n, n) for n in sizes if n + kept < layers]


def losses(damages: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rise of the C4 loss of the same cuts, from the damage map; columns as of `scores`.

    damages: of damage.measure; scores: of `requests`.
    """
    (name, *_) = scores.model
    of_model = damages[damages.model == name]
    layers = of_model.block_size.max() + 1
    kept = layers - of_model.block_start - of_model.block_size
    kept = kept.sort_values(kind="stable")
    cuts = of_model.loc[kept.index].assign(strategy=kept.map(KEPT), questions="c4", form="loss")
    cuts = cuts[cuts.strategy.notna() & (cuts.block_size <= scores.block_size.max())]
    return cuts.assign(treatment="unhealed")


def figure_last_layers(scores: pd.DataFrame, damages: pd.DataFrame) -> Figure:
    """Draw one model's answers and loss against the layers dropped, a line for each number of last
    layers that are kept. Bars: 95 %.

    scores: of `requests`; damages: of damage.measure.
    """
    measured = scores[scores.value.notna()]
    if not (measured.block_size > 0).any():
        return nothing_measured(scores)
    rises = losses(damages, measured)
    cuts = measured[measured.block_size > 0]
    panels = [panel for panel in PANELS if len(_of_panel(cuts, panel))]
    with plt.rc_context(STYLE):
        size = max(WIDTH, 1.9 * (len(panels) + 1)), 3.1
        figure, axes = plt.subplots(1, len(panels) + 1, figsize=size)
        for axis, panel in zip(axes, panels, strict=False):
            of_panel = _of_panel(measured, panel)
            for whole in of_panel[of_panel.block_size == 0].itertuples():
                axis.axhline(whole.value, color="black", ls="--", lw=1, label="unpruned")
                axis.axhline(whole.floor, color="grey", ls="-.", lw=1, label="floor")
            _lines(axis, of_panel)
            axis.set_title(PANELS[panel], loc="left")
            axis.set_title(f"n = {of_panel.n.max():.0f}", loc="right", fontsize=7)
        _lines(axes[-1], rises)
        axes[-1].set_title("rise of the C4\nloss (nats)", loc="left")
        axes[0].set_ylabel(f"accuracy of\n{registry.label(measured.model.iloc[0])}")
        table = pd.concat([measured, rises])
        return finished(figure, table, legend="bars: 95 %")


def _of_panel(scores: pd.DataFrame, panel: tuple[str, str]) -> pd.DataFrame:
    questions, form = panel
    return scores[(scores.questions == questions) & (scores.form == form)]


def _lines(axis, scores: pd.DataFrame) -> None:
    """Draw a line for each number of layers that are kept."""
    for strategy, (shade, marker, style) in LOOKS.items():
        of_cut = scores[scores.strategy == strategy]
        if len(of_cut):
            look = {"color": shade, "marker": marker, "ls": style, "ms": 3.5, "lw": 1}
            line(axis, of_cut, "block_size", strategy, **look)
    axis.set_xlabel("layers dropped")
    axis.set_xticks(sorted(set(scores.block_size[scores.block_size > 0])))
