"""What tables and maps say, with intervals."""

from replication.analysis.answers import boolq_ranking, kept, largest_step, measures
from replication.analysis.bootstrap import paired
from replication.analysis.choice import beside_distances, rank_correlation
from replication.analysis.criteria import grid, head_to_head, summary
from replication.analysis.curves import transitions
from replication.analysis.depth import best_starts, depth_statistics, leaves_deep_band
from replication.analysis.dose import gap_left
from replication.analysis.repair import repairs
