"""How the layers to drop are chosen: a row a strategy. Loads no torch.

A function takes distances (a BlockDistances, or whatever else has num_layers and best_start) and a
size, and returns the block. Its colour and marker are a row of `figures/colours.csv`.
"""

from lib.blocks import Block, similarity_block, simple_block

CHOOSE = {
    "similarity": similarity_block,
    "simple": lambda distances, size: simple_block(distances.num_layers, size),
    # not the paper's: the deepest layers, the last one too
    "early exit": lambda distances, size: Block(distances.num_layers - size, size),
}
STRATEGIES = ("similarity", "simple")  # the paper's two, which notebooks 02 to 07 compare
WITH_EXIT = (*STRATEGIES, "early exit")
EXIT_AND_SIMILARITY = ("similarity", "early exit")
