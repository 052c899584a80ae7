"""Faults of machines and files: several GPUs, other weights in a folder, an adapter that is gone.

`python -m benchmarks.faults.machines WHAT FOLDER` does WHAT there and prints what came of it.
"""

import argparse
import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.faults import Fault, toys
from replication import paths


def several_gpus(folder: Path) -> str:
    """A runner is shown two GPUs, a process that heals counts eight."""
    status, printed = toys.finish(toys.start(folder, "a", CUDA_VISIBLE_DEVICES="2,3"))
    assert status == 0, printed
    (line,) = toys.lines(folder)
    assert line.split()[2] == "2", line
    counted = _done("heal_where_eight_are_counted", folder)
    assert counted["a step"] == counted["batch"] == 16, counted
    return "the kernel saw the first; 16 sequences a step where torch counts 8 GPUs"


def weights_overwritten(folder: Path) -> str:
    """A model is saved, measured, saved into the same folder with other weights, measured."""
    first, second = _done("measure_overwritten", folder)["distances"]
    alone = _done("measure", folder, folder / "other output")["distances"]
    assert first != second == alone, (first, second, alone)
    return "measured anew, and as by a process that never saw the first weights"


def adapter_deleted(folder: Path) -> str:
    """The adapter of a healing is deleted, its record stays."""
    first, again = (_done("heal", folder) for _ in range(2))
    assert first["trained"] and not again["trained"], (first, again)
    shutil.rmtree(next((folder / "output").glob("**/adapter")))
    anew = _done("heal", folder)
    assert anew["trained"] and anew["losses"] == first["losses"], (first, anew)
    assert len(list((folder / "output").glob("**/adapter/*.safetensors"))) == 1
    return "healed again, the same losses"


def another_processor(folder: Path) -> str:
    """A results folder was begun on a processor that is fastest in the format that this is not."""
    here = _done("format", folder)
    other = {"bfloat16": "float32", "float32": "bfloat16"}[here["dtype"]]
    file = folder / "output" / "data" / "results" / "format.json"
    file.write_text(json.dumps({"dtype": other, "processor": "another", "seconds": {}}))
    moved = _done("format", folder)
    assert moved["dtype"] == moved["keyed"] == other, (here, moved)
    assert len(moved["told"]) == 1 and "another" in moved["told"][0], moved
    return f"{here['dtype']} is fastest here; it resumes in {other}, and one line says so"


# ---- in a process of its own -------------------------------------------------------------------


def heal_where_eight_are_counted(folder: Path) -> dict:
    import torch

    from lib.healing import packing

    torch.cuda.device_count = lambda: 8
    sizes, collator = [], packing.collator

    def counting(joined: bool, pad_token: int) -> Callable:
        def collate(batch):
            sizes.append(len(batch))
            return collator(joined, pad_token)(batch)

        return collate

    packing.collator = counting
    recipe, _ = _healed(folder / "healed", micro_batch=4)
    return {"a step": sum(sizes) / recipe.steps, "batch": recipe.batch}


def heal(folder: Path) -> dict:
    from lib.healing import training

    trained, real = [], training._train
    training._train = lambda *args: trained.append(1) or real(*args)
    _, healed = _healed(paths.RESULTS / "adapters" / "toy")
    return {"trained": bool(trained), "losses": healed.losses}


def _healed(place: Path, micro_batch: int = 16):
    from lib.blocks import Block
    from lib.healing import training
    from lib.models import loading
    from lib.pruning import dropped
    from replication import profiles

    recipe = profiles.recipe("tiny-random", profiles.get("smoke"))
    model, tokenizer = loading.load("tiny-random", dtype="float32", device="cpu")
    with dropped(model, Block(2, 2)):
        return recipe, training.heal(model, tokenizer, recipe, place, micro_batch)


def measure_overwritten(folder: Path) -> dict:
    import torch

    from lib.models import loading

    model, tokenizer = loading.load("tiny-random", dtype="float32", device="cpu")
    distances = []
    for factor in (1, 1.3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(factor)
        model.save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")
        distances.append(measure(folder)["distances"])
    return {"distances": distances}


def measure(folder: Path) -> dict:
    from replication import profiles
    from replication.measure import distance_maps

    name = str(folder / "model")
    distances = distance_maps.of_model(name, profiles.get("smoke", models=[name]))
    return {"distances": float(distances.matrix.mean())}


def format(folder: Path) -> dict:
    from lib.models import loading, machine
    from replication import profiles

    messages, handler = [], logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logging.getLogger("lib").addHandler(handler)
    profile = profiles.get("quick")
    keyed = loading.weights_identity("tiny-random", **profile.load_kwargs)["dtype"]
    return {"dtype": machine.fastest(), "keyed": keyed, "told": messages}


def _done(what: str, folder: Path, output: Path | None = None) -> dict:
    """What `what` came to in a process of its own, whose results go to `output`."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults.machines", what, str(folder)],
        env=toys.environment(output or folder / "output"),
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-400:]
    return json.loads(done.stdout.splitlines()[-1])


DONE = (heal_where_eight_are_counted, heal, measure_overwritten, measure, format)
QUICK = []
SLOW = [
    Fault("an adapter deleted next to its record", "healed again", adapter_deleted),
    Fault("several GPUs visible", "a kernel sees one; the batch stays 16", several_gpus),
    Fault("a model folder overwritten", "measured anew", weights_overwritten),
    Fault("results move to another processor", "they keep their format", another_processor),
]


def main(argv: list[str] | None = None) -> int:
    actions = {action.__name__: action for action in DONE}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults.machines", description=__doc__
    )
    parser.add_argument("what", choices=actions)
    parser.add_argument("folder", type=Path)
    chosen = parser.parse_args(argv)
    print(json.dumps(actions[chosen.what](chosen.folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
