"""All that a run needs, before it costs anything: `python -m replication --profile a100 --fetch`.

Downloads and checks question sets, licences, tokenizers, C4 and weights, by the functions that the
run calls, and looks for room on the disk. Needs no GPU. What is small comes first; where some of it
is missing, nothing large is downloaded. With HF_HUB_OFFLINE=1 it only looks.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from huggingface_hub import constants, snapshot_download

from lib.data import sets, wheels
from lib.evaluation import Task
from lib.models import files
from replication.measure.request import Request, load_task
from replication.profiles import Profile
from replication.run import job_results
from replication.tables import grouped

SMALL = [pattern for pattern in files.CHECKPOINT_FILES if "safetensors" not in pattern]
DEPTH = 32  # of a model whose depth is not known yet
FEW = 2  # questions of a set that are read; all are in the same files


def fetch(profile: Profile, notebooks: Sequence[str]) -> int:
    """Fetch and check what notebooks (numbers) need; return 0 if all of it is there, else 1."""
    tasks, downloads = [], []
    small, large = {}, {"texts": partial(texts, profile)}
    requests = job_results.assumed_requests(profile.limited(FEW), notebooks, DEPTH)
    ways = {_way(request): request for request in requests if "task" in request.params}
    for data, same_set in grouped(ways.values(), lambda request: request.params["data"]).items():
        small[data] = partial(questions, same_set, tasks)
    for name in profile.models:
        small[f"{name}: licence, tokenizer"] = partial(opened, name, tasks, downloads)
        large[f"{name}: weights"] = partial(weights, name)
    small["room on the disk"] = partial(room, downloads)
    complete = _check(small)
    if complete or constants.HF_HUB_OFFLINE:
        return int(not (_check(large) and complete))
    print("Weights, and texts to heal on, were not tried: mend this, then repeat the command.")
    return 1


def _way(request: Request) -> tuple:
    """Return what tells one way to ask questions from another."""
    return tuple(map(request.params.get, ("task", "data", "shots", "shot_order")))


def _check(looks: Mapping[str, Callable[[], str]]) -> bool:
    """Print a line each of what is there and what is not, and why; return whether all is."""
    complete = True
    for what, look in looks.items():
        try:
            line = f"there    {what:32} {look()}"
        except (sets.DataError, wheels.AssetError, ValueError, OSError) as error:
            line, complete = f"MISSING  {what:32} {str(error).splitlines()[0]}", False
        print(line, flush=True)
    return complete


# ---- what is looked for: a note, or an error that says why it is not there --------------------


def questions(requests: Sequence[Request], tasks: list[Task]) -> str:
    """Read a data set in each way in which it is asked; add these to `tasks`."""
    tasks += [load_task(request.params) for request in requests]
    return f"ways to ask: {len(requests)}"


def opened(name: str, tasks: Sequence[Task], downloads: list[int]) -> str:
    """Get all of a model but its weights, whose bytes it notes; encode a question of each task.

    A choice that is a letter must be one token.
    """
    checkpoint = files.open_checkpoint(name, SMALL)
    source, tokenizer = checkpoint.source, checkpoint.tokenizer()
    for task in tasks:
        task.spec.rows(task.examples[0], tokenizer)
    if source.kind == "hub" and not constants.HF_HUB_OFFLINE:
        options = {"revision": source.revision, "allow_patterns": files.CHECKPOINT_FILES}
        listed = snapshot_download(source.location, **options, dry_run=True)
        downloads += [file.file_size for file in listed if file.will_download]
    return f"{source.location} at {source.revision[:12]}"


def room(downloads: Sequence[int]) -> str:
    """Compare the disk with the bytes of weights that are still to be downloaded."""
    cache = Path(constants.HF_HUB_CACHE).absolute()
    place = next(folder for folder in (cache, *cache.parents) if folder.exists())
    needed, free = sum(downloads) / 1e9, shutil.disk_usage(place).free / 1e9
    if needed > free:
        raise OSError(f"{needed:.3g} GB are needed in {place}, and {free:.3g} are free.")
    return f"{needed:.3g} GB to download"


def texts(profile: Profile) -> str:
    """Read as many documents as the profile measures and heals on."""
    measured = max(profile.similarity_sequences, profile.c4_sequences, profile.damage_sequences)
    healed = max(profile.heal_steps * profile.heal_batch, profile.map_sequences)
    sets.c4("validation", profile.source, measured)
    sets.healing_texts(profile.source, healed)
    return f"of C4, {measured:,} to measure on and {healed:,} to heal on"


def weights(name: str) -> str:
    """Open each file of a model's weights; of its tensors only the names are read."""
    return f"{len(files.open_checkpoint(name).tensors()):,} tensors"
