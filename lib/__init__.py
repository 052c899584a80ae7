"""Remove a block of consecutive layers from a language model, heal the cut, evaluate what is left.

models.load -> similarity.block_distances -> pruning.similarity_block -> sweep.sweep, healing.heal
"""

import logging
import os

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of optional kernels it lacks
# cuBLAS computes the same bits each time only with workspaces of its own. CUDA reads this as it
# starts, so it is set before torch is imported, and a kernel inherits it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
