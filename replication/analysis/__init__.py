"""Statistics of tables and maps, with intervals."""

from replication.analysis.answers import boolq_ranking
from replication.analysis.bootstrap import paired
from replication.analysis.choice import beside_distances, rank_correlation
from replication.analysis.curves import transitions
from replication.analysis.depth import depth_statistics
