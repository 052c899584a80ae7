"""HellaSwag and GSM8K against layers dropped: the question sets of the paper's second version."""

import pandas as pd

from lib import curves
from lib.profiles import Profile
from lib.pruning import similarity_block
from lib.similarity import BlockDistances

UNSOLVED = "no answer: the unpruned model solves none"


def measure(name: str, profile: Profile, distances: BlockDistances) -> pd.DataFrame:
    """Unhealed scores of similarity-informed pruning, in the columns of `curves.unhealed`.

    Tasks: hellaswag and gsm8k_bpb (bits per byte of the gold solution) at every block size of the
    profile; gsm8k (exact match of what the model writes) where it heals, too. Where the unpruned
    model solves no problem, no pruned one is asked; these rows have no value, only a status.
    """
    num_layers = distances.num_layers

    def at(sizes: list[int]) -> list:
        return [similarity_block(distances, size) for size in sizes]

    every, few = profile.block_sizes(num_layers), profile.healed_sizes(num_layers)
    read = curves.measure(name, profile, at(every), ["hellaswag", "gsm8k_bpb"])
    written = curves.measure(name, profile, [], ["gsm8k"])
    if written.value[0] > 0:
        written = curves.measure(name, profile, at(few), ["gsm8k"])
    else:
        gone = curves.NO_SCORE | {"status": UNSOLVED}
        skipped = [
            written.iloc[0].to_dict() | gone | {"block_start": b.start, "block_size": b.size}
            for b in at(few)
        ]
        written = pd.concat([written, pd.DataFrame(skipped)], ignore_index=True)
    table = pd.concat([read, written], ignore_index=True)
    whole = table.block_size == 0
    table["strategy"] = whole.map({True: "none", False: "similarity"})
    table["treatment"] = whole.map({True: "unpruned", False: "unhealed"})
    return table.assign(fraction=table.block_size / num_layers)
