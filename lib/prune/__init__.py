"""A model's name in, a smaller checkpoint out: `deeper-layers prune MODEL FOLDER --layers 6`.

Chooses a block of layers, drops it, repairs the cut with a linear map and heals it if told to, and
writes an ordinary checkpoint with a model card. The checkpoints of the healing are kept in
FOLDER.work: the same command, once it was interrupted, goes on healing from there.
Its names are imported at first use: reading `Options` loads no torch.
"""

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:  # so that an editor knows them
    from .options import Options
    from .run import prune

__getattr__ = lazy(__name__, {"Options": "options", "prune": "run"})
