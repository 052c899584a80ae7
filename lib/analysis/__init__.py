"""What tables and maps say, with intervals."""

from lib.analysis.answers import boolq_ranking, kept, largest_step, measures
from lib.analysis.bootstrap import paired
from lib.analysis.choice import beside_distances, rank_correlation
from lib.analysis.criteria import grid, head_to_head, summary
from lib.analysis.curves import transitions
from lib.analysis.depth import best_starts, depth_statistics, leaves_deep_band
from lib.analysis.dose import gap_left
from lib.analysis.repair import repairs
