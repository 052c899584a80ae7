"""The figures: tables in, a figure with its table out; `save` writes it as PNG and CSV."""

from replication.figures.ablations import figure_8, figure_9
from replication.figures.cost import figure_cost
from replication.figures.curves import (
    figure_1d,
    figure_2,
    figure_2_arc_easy,
    figure_3,
    figure_5,
    figure_6,
    figure_7,
    figure_beyond,
)
from replication.figures.damage import figure_damage
from replication.figures.dose import figure_dose
from replication.figures.heatmaps import (
    figure_1a,
    figure_1b,
    figure_1c,
    figure_4,
    figure_islands,
    figure_starts,
)
from replication.figures.style import save
from replication.figures.verdicts import figure_claims
