"""The paper's claims (arXiv 2403.17887), and when each counts as met.

The bounds are ours: the paper states its claims in words.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Criterion:
    """A claim of the paper, and between which values a statistic must lie for it to hold."""

    statement: str
    statistic: str  # what is measured, in words
    least: float = -np.inf
    most: float = np.inf
    heals: bool = False  # the statistic is one of healed models

    @property
    def text(self) -> str:
        """The criterion as one sentence."""
        bounds = {
            (False, True): f"below {self.most:g}",
            (True, False): f"above {self.least:g}",
            (True, True): f"between {self.least:g} and {self.most:g}",
        }
        return f"{self.statistic}: {bounds[self.least > -np.inf, self.most < np.inf]}"


# In fractions of the model's layers, accuracies, or shares of what lies between the unpruned
# model's score and that of knowing nothing ("the way to chance").
CRITERIA = {
    "1": Criterion(
        "Question answering survives until 20 to 55 % of the layers are gone",
        "fraction dropped where half of the score above chance is lost",
        0.20,
        0.55,
    ),
    "2a": Criterion(
        "Its transition is sharp",
        "fraction of the layers between a quarter lost and three quarters lost",
        most=0.15,
    ),
    "2b": Criterion(
        "It falls to chance",
        "share of the score above chance that is left beyond the transition",
        most=0.25,
    ),
    "2c": Criterion(
        "The transition stays sharp after healing",
        "fraction of the layers between a quarter lost and three quarters lost, healed",
        most=0.15,
        heals=True,
    ),
    "2d": Criterion(
        "Healing moves the transition only a little",
        "fraction where half is lost, healed less unhealed",
        -0.05,
        0.10,
        heals=True,
    ),
    "2e": Criterion(
        "Healing lifts the scores modestly",
        "accuracy healed less unhealed, mean over depths",
        0,
        0.10,
        heals=True,
    ),
    "3a": Criterion(
        "Unhealed, the C4 loss jumps where question answering falls",
        "fraction where the loss is half way to chance, less that of the questions",
        -0.10,
        0.10,
    ),
    "3b": Criterion(
        "Healed, the C4 loss grows about linearly, without a kink",
        "steepest step between neighbouring depths over the mean slope",
        most=2,
        heals=True,
    ),
    "3c": Criterion(
        "Healed, the loss is still low where question answering is lost",
        "share of the way to chance that the loss has gone there",
        most=0.25,
        heals=True,
    ),
    "4a": Criterion(
        "Deeper blocks are more similar than shallow ones",
        "mean distance of blocks in the upper half less that in the lower half",
        most=0,
    ),
    "4b": Criterion(
        "Blocks with the last layer are the most dissimilar",
        "their mean distance, each block size rescaled to 0 to 1",
        0.9,
    ),
    "5": Criterion(
        "Qwen has islands of similar blocks in shallow layers",
        "number of islands shallower than the deep band",
        0.5,
    ),
    "6": Criterion(
        "Dropping shallow layers hurts more than dropping deep ones",
        "rise of the C4 loss (nats), blocks of the lower half less those of the upper half",
        0,
    ),
    "7a": Criterion(
        "Unhealed, simple pruning is far worse",
        "share of the way to chance that the C4 loss has gone, simple less similarity",
        0.25,
    ),
    "7b": Criterion(
        "Healed, the two are comparable on questions",
        "accuracy, similarity less simple, mean over depths",
        -0.05,
        0.05,
        heals=True,
    ),
    "7c": Criterion(
        "Healed, similarity is better on loss at every depth",
        "smallest C4 loss (nats) of simple less that of similarity",
        0,
        heals=True,
    ),
    "7d": Criterion(
        "Healed, it is better only slightly",
        "largest of these gaps, as a share of the way to chance",
        most=0.05,
        heals=True,
    ),
    "8": Criterion(
        "Deeper models are more robust",
        "rank correlation (Kendall) of the number of layers and the fraction where half is lost",
        0,
    ),
    "9a": Criterion(
        "The order of the few-shot examples does not change the picture",
        "largest mean difference in accuracy from the given order",
        most=0.05,
        heals=True,
    ),
    "9b": Criterion(
        "The number of examples does not move the transition",
        "fraction where half is lost, most examples less none",
        -0.10,
        0.10,
        heals=True,
    ),
    "9c": Criterion(
        "More examples help a little where the curve is flat",
        "accuracy before the transition, most examples less none",
        0,
        0.10,
        heals=True,
    ),
    "10a": Criterion(
        "The seed of healing does not change the questions' picture",
        "largest mean difference in accuracy from the first seed",
        most=0.05,
        heals=True,
    ),
    "10b": Criterion(
        "The seed of healing does not change the loss",
        "largest mean difference in C4 loss (nats) from the first seed",
        most=0.05,
        heals=True,
    ),
    "11a": Criterion(
        "A lower LoRA rank answers better",
        "accuracy, lowest rank less highest, mean over depths",
        0,
        heals=True,
    ),
    "11b": Criterion(
        "A lower LoRA rank has a worse C4 loss",
        "C4 loss (nats), lowest rank less highest, mean over depths",
        0,
        heals=True,
    ),
    "12a": Criterion(
        "Pruning cuts the memory of inference",
        "share of the weights' memory saved, for each share of the layers dropped",
        0.5,
    ),
    "12b": Criterion(
        "Pruning cuts the latency of reading a prompt",
        "share of the time saved, for each share of the layers dropped",
        0.5,
    ),
    "12c": Criterion(
        "Pruning cuts the latency of writing",
        "share of the time saved, for each share of the layers dropped",
        0.5,
    ),
    "12d": Criterion(
        "Pruning stacks with quantisation",
        "memory of the pruned NF4 model over the smaller of pruned and of NF4 alone",
        most=1,
    ),
    "13a": Criterion(
        "HellaSwag is harmed by any amount of pruning",
        "smallest loss of accuracy at any depth",
        0,
    ),
    "13b": Criterion(
        "GSM8K is harmed by any amount of pruning",
        "smallest loss of accuracy at any depth",
        0,
    ),
    "13c": Criterion(
        "GSM8K's gold solutions become less likely with any amount of pruning",
        "smallest rise of their bits per byte at any depth",
        0,
    ),
}
