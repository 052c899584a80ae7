"""`make gpu`, or `python -m benchmarks.gpu --tiny` to rehearse it."""

import argparse
import shutil
import signal
import sys
import time
import traceback
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pandas as pd
import torch

import benchmarks.gpu
from benchmarks.gpu import random_model
from benchmarks.gpu.bench import HEADER, UNKNOWN, Bench, Row
from benchmarks.gpu.sections import SECTIONS, SEVEN_B, TINY
from lib import cards, storage
from lib.cards import Card
from lib.data import sets
from lib.gpu.memory import RUNTIME_BYTES
from lib.models import loading
from replication import paths, profiles

DISK = 17e9  # bytes: the model's 14.5 GB, adapters and checkpoints
BUDGET = 560  # seconds
WORK = paths.DATA / "gpu"  # of this program alone: it is deleted at the end
RESULTS = paths.ROOT / "benchmarks" / "results"
VERSIONS = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")


class TimeIsUp(Exception):
    """A section took longer than it may."""


def refusal(tiny: bool) -> str:
    """Say in one sentence why nothing can be measured; empty if it can."""
    if tiny:
        return ""
    if not torch.cuda.is_available():
        return (
            f"PyTorch {torch.__version__} sees no GPU here: run `make gpu` where there is one, or "
            "rehearse it with `make gpu TINY=1`."
        )
    free = shutil.disk_usage(paths.ROOT).free
    if free < DISK:
        needed = f"The model needs {DISK / 1e9:.0f} GB of disk"
        return f"{needed}, and {paths.ROOT} has {free / 1e9:.1f}: make room."
    return ""


def bench(work: Path, tiny: bool) -> Bench:
    """Return the model to be written, and how much is measured of it."""
    sizes, longest, many = (TINY, 64, 4) if tiny else (SEVEN_B, 2048, 48)
    profile = replace(
        profiles.get("paper"),
        models=(str(work / "random-7b"),),
        similarity_sequences=2 * many,
        similarity_tokens=longest,
        c4_sequences=many,
        c4_tokens=longest,
        mmlu_questions=many,
        heal_fractions=(0.5,),
        heal_tokens=longest,
        heal_rank=2,
        heal_packed=True,
        cost_prompt_tokens=longest,
        cost_new_tokens=4 if tiny else 32,
        cost_repeats=2 if tiny else 4,
        batch_tokens=longest,
    )
    try:
        card = cards.get_card()
    except ValueError:  # a GPU whose rates are not known
        name = torch.cuda.get_device_name()
        memory = (torch.cuda.get_device_properties(0).total_memory - RUNTIME_BYTES) / 1e9
        card = cards.get_card(UNKNOWN)._replace(name=_short(name), gpu=name, memory=memory)
    return Bench(profile.models[0], sizes, profile, card, tiny)


def _short(device: str) -> str:
    """Return a GPU's name as that of a file or a card."""
    return storage.component(device).lower()


def measure(bench: Bench, sections: dict, budget: float) -> list[str]:
    """Run the sections in turn, each in its time; return the names of those that failed."""
    failed, begun = [], time.monotonic()

    def up(*_):
        raise TimeIsUp

    signal.signal(signal.SIGALRM, up)
    for section, most in sections.items():
        name, left = section.__name__, budget - (time.monotonic() - begun)
        print(f"[{budget - left:3.0f} s] {section.__doc__}", flush=True)
        try:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, min(most, left)))
            section(bench)
        except TimeIsUp:
            bench.add(Row(name, note=f"ended: {min(most, left):.0f} s were left for it"))
        except Exception as error:
            failed.append(name)
            message = (str(error).strip().splitlines() or [""])[0]
            bench.add(Row(name, note=f"failed: {type(error).__name__}: {message[:200]}"))
            traceback.print_exc(limit=-8, file=sys.stdout)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return failed


def measured_card(bench: Bench) -> Card | None:
    """Return the card with the shares of its speed that were reached; None where one is missing.

    Forward: distances and sweeps together. Training: all steps of healing together.
    """
    shares = []
    for trains, before in ((False, bench.card.forward), (True, bench.card.training)):
        rows = [row for row in bench.rows if row.rate and row.trains == trains]
        if not rows:
            return None
        planned = sum(row.seconds for row in rows)
        shares.append(before * planned / sum(row.measured.seconds for row in rows))
    source = f"measured by `make gpu` with PyTorch {torch.__version__}"
    return bench.card._replace(forward=shares[0], training=shares[1], source=source)


def keep(card: Card, file: Path = cards.CARDS) -> None:
    """Write the card's row of cards.csv: over the one of its name, or as a new one."""
    rows = pd.DataFrame((cards.known_cards() | {card.name: card}).values())
    rows.to_csv(file, index=False, float_format="%.4g")


def report(bench: Bench, seconds: float) -> str:
    """Return the table as a page."""
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if gpu else "no GPU"
    size = "a small model" if bench.tiny else "Mistral-7B's shape"
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    rows = (HEADER, ["---"] * len(HEADER), *(row.cells() for row in bench.rows))
    return "\n".join(
        [
            f"# `make gpu` on {device}\n",
            f"- Random weights, {size}; {seconds:.0f} s in all",
            f"- Planned for {bench.card.name}: {bench.card.source}",
            f"- Versions: {versions}",
            "- GB: the peak above what was held before (weights: what is kept); ratio: measured / "
            "planned\n",
            *("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows),
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gpu", description=benchmarks.gpu.__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small model, on whatever is there")
    tiny, begun = parser.parse_args(arguments).tiny, time.monotonic()
    reason = refusal(tiny)
    if reason:
        print(reason, file=sys.stderr)
        return 2
    shutil.rmtree(WORK, ignore_errors=True)  # what a run that was killed left
    WORK.mkdir(parents=True)
    planned = bench(WORK, tiny)
    longest = planned.profile.heal_tokens
    texts = random_model.texts(96, longest, longest // 4)
    try:
        with (
            mock.patch.object(sets, "healing_texts", lambda source, count: texts),
            mock.patch.object(paths, "RESULTS", WORK / "results"),
        ):
            failed = measure(planned, SECTIONS, BUDGET)
    finally:
        loading._loaded.clear()
        shutil.rmtree(WORK, ignore_errors=True)
    page, card = report(planned, time.monotonic() - begun), measured_card(planned)
    print("\n" + page)
    if card:
        shares = f"{card.forward:.0%} of the planned speed forward, {card.training:.0%} healing"
        print(f"Measured: {shares}.")
    if torch.cuda.is_available() and not tiny:
        file = RESULTS / f"gpu-{_short(torch.cuda.get_device_name())}.md"
        file.write_text(page, encoding="utf-8")
        print(f"Written to {file.relative_to(paths.ROOT)}.")
        if card:
            keep(card)
            print(f"The plan now counts with these shares for {card.name}: lib/cards.csv.")
    print(f"Failed: {', '.join(failed)}." if failed else "Nothing failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
