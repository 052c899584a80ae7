"""A replication of "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887).

The way from a model's name to a picture:
models.load -> similarity.block_distances -> blocks.Block -> sweep.sweep -> results -> figures.
"""

import logging
import os

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of optional kernels it lacks
# cuBLAS computes the same bits each time only with workspaces of its own. CUDA reads this as it
# starts, so it is set before torch is imported, and a kernel inherits it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
