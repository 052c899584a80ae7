"""A replication of "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887).

The way from a model's name to a picture:
models.load -> similarity.block_distances -> pruning.Block -> sweep.sweep -> results -> plotting.
"""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of optional kernels it lacks
