"""Remove a block of consecutive layers from a language model, heal the cut, evaluate what is left.

models.load -> similarity.block_distances -> pruning.similarity_block -> sweep.sweep, healing.heal
"""

import logging
import os
import platform

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of optional kernels it lacks
# cuBLAS computes the same bits each time only with workspaces of its own. CUDA reads this as it
# starts, so it is set before torch is imported, and a kernel inherits it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
# On an H100 PyTorch would prefer cuDNN's attention, which is built anew for each shape.
os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
# A GPU's memory is taken in segments that grow, since rows of many lengths would leave gaps between
# fixed ones. Not under Windows (WSL), whose driver may refuse that. Older releases of PyTorch read
# the second name only.
_ALLOCATOR = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}
if not (_ALLOCATOR & os.environ.keys() or "microsoft" in platform.release().lower()):
    os.environ |= dict.fromkeys(_ALLOCATOR, "expandable_segments:True")
