"""Faults of files: damaged results, full and read-only disks, names that lead elsewhere."""

import json
import multiprocessing
import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.faults import Fault, toys
from lib.models import registry
from replication import paths, results

PARAMS = {"model": "toy", "version": 1}


def damaged(folder: Path, damage: Callable[[str, random.Random], str], count: int) -> str:
    """Damage a stored result `count` times: each time it is set aside and measured again."""
    dice = random.Random(0)
    with _results_in(folder):
        whole = results.save("toy", PARAMS, {"value": [0.1, 0.2]}, 1.0)
        file = results.location("toy", PARAMS)
        for n in range(count):
            file.write_text(damage(file.read_text(), dice))
            again = results.load_or_compute("toy", PARAMS, lambda: {"value": [0.1, 0.2]})
            assert again["values"] == whole["values"] and results.load("toy", PARAMS) == again
            assert len(list(file.parent.glob("*.corrupt"))) == n + 1
    return f"{count} of {count} set aside as *.corrupt and made again"


def truncated(text: str, dice: random.Random) -> str:
    return text[: dice.randrange(len(text))]


def not_finite(text: str, dice: random.Random) -> str:
    return text.replace("0.1", dice.choice(["NaN", "Infinity", "-Infinity"]))


def of_other_parameters(text: str, dice: random.Random) -> str:
    record = json.loads(text)
    return json.dumps(record | {"params": {"model": "toy", "version": dice.random()}})


def of_another_schema(text: str, dice: random.Random) -> str:
    return json.dumps(json.loads(text) | {"schema": results.SCHEMA + dice.randint(1, 9)})


def full_disk(folder: Path) -> str:
    """A tmpfs of 1.5 MB for all that a run writes; the result is larger."""
    with _mounted(folder / "output", "-t", "tmpfs", "-o", "size=1500k", "tmpfs"):
        status, printed = toys.finish(toys.start(folder, "large", "b"))
        assert status == 1 and "No space left on device" in printed, printed
        left = [file.name for file in (folder / "output").rglob("*large*") if file.is_file()]
        assert not list(folder.glob("output/**/toy/large/*")), left
        assert not list(folder.rglob("*.part")), left
        assert "\nok" in printed, printed
        _mount("-o", "remount,size=9m", folder / "output")
        status, printed = toys.finish(toys.start(folder, "large", "b"))
        assert status == 0, printed
    return "that job failed: No space left on device; no part of it stays; with room it ends"


def read_only(folder: Path) -> str:
    (folder / "output").mkdir(parents=True)
    with _mounted(folder / "output", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        status, printed = toys.finish(toys.start(folder, "a"))
    assert status == 2 and "Read-only file system" in printed, printed
    assert len(printed.strip().splitlines()) == 1, printed
    return f"exit 2: “{printed.strip()[:40]}…”"


def leading_elsewhere(folder: Path) -> str:
    names = ["../../etc/passwd", "/abs", "..", "a/..", "../b", "~/c", "a\x00b"]
    for name in names:
        place = results.location("toy", {"model": name})
        assert place.resolve().parent.parent == (paths.RESULTS / "toy").resolve(), place
        assert len(place.name) < 100 and len(place.parent.name) < 100, place
        try:
            source = registry.resolve(name)
            raise AssertionError(f"{name} is taken for {source}")
        except (registry.ModelError, ValueError):
            pass
    return f"{len(names)} of {len(names)} names refused; none leads out of data/results"


def two_healings(folder: Path) -> str:
    """Two processes are to heal the same block into the same folder at the same time."""
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        first, second = pool.map(_heal, [folder / "adapter"] * 2)
    assert first[1] == second[1], (first, second)
    assert {first[0], second[0]} == {True, False}, (first, second)
    return "one trained, the other waited and took what it left"


def _heal(folder: Path) -> tuple[bool, list[float]]:
    """Whether this process trained, and the losses it got."""
    from lib.blocks import Block
    from lib.healing import training
    from lib.models import loading
    from lib.pruning import dropped
    from replication import profiles

    trained = []
    real = training._train
    training._train = lambda *args: trained.append(1) or real(*args)
    recipe = profiles.recipe("tiny-random", profiles.get("smoke"))
    model, tokenizer = loading.load("tiny-random", dtype="float32", device="cpu")
    with dropped(model, Block(2, 2)):
        healed = training.heal(model, tokenizer, recipe, folder)
    return bool(trained), healed.losses


@contextmanager
def _results_in(folder: Path) -> Iterator[None]:
    before, results.paths.RESULTS = paths.RESULTS, folder
    level = results.log.level
    results.log.setLevel("ERROR")
    try:
        yield
    finally:
        results.paths.RESULTS = before
        results.log.setLevel(level)


@contextmanager
def _mounted(place: Path, *options: str) -> Iterator[None]:
    place.mkdir(parents=True, exist_ok=True)
    _mount(*options, place)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


DAMAGES = {
    "result cut at random": (truncated, 200),
    "empty result": (lambda *_: "", 1),
    "NaN or infinity in a result": (not_finite, 9),
    "result of another key": (of_other_parameters, 9),
    "stale schema": (of_another_schema, 9),
}
QUICK = [
    *(
        Fault(name, "set aside, made again", partial(damaged, damage=damage, count=count))
        for name, (damage, count) in DAMAGES.items()
    ),
    Fault("model names that lead elsewhere", "refused", leading_elsewhere),
]
SLOW = [
    Fault("two processes, one healing", "the second waits for it", two_healings),
    Fault("disk full (tmpfs)", "one job fails, nothing half-written", full_disk),
    Fault("read-only results folder", "one sentence before any computing", read_only),
]
