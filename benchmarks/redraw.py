"""`python -m benchmarks.redraw`: milliseconds until the explorer of two models has redrawn.

Two maps of 80 layers, the depth of Llama-2-70B, each with a damage map. In Chromium: from a move
of the slider to the second frame after it.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from lib.blocks import BlockDistances
from replication.figures import explorer

LAYERS = 80
REDRAW = """async n => {
    const slider = document.querySelector("[name=n]");
    const frame = () => new Promise(requestAnimationFrame);
    const start = performance.now();
    slider.value = n;
    slider.dispatchEvent(new Event("input", {bubbles: true}));
    await frame();
    await frame();
    return performance.now() - start;
}"""


def distance_map(seed: int) -> BlockDistances:
    """Distances that grow with n and fall with depth, with some noise."""
    start, stop = np.mgrid[: LAYERS + 1, : LAYERS + 1]
    growth = np.sqrt(np.maximum(stop - start, 0))
    fall = 1.2 - start / LAYERS
    upper = np.triu(0.05 * growth * fall, 1)
    drawn = np.random.default_rng(seed).standard_normal((16, *upper.shape))
    noise = 0.002 * np.triu(drawn, 1)
    folds = upper + noise
    folds += folds.transpose(0, 2, 1)
    return BlockDistances(folds.mean(0), folds.std(0) / 4, folds, 256)


def damage_map() -> pd.DataFrame:
    blocks = [(l, n) for n in range(1, LAYERS) for l in range(LAYERS - n + 1)]
    table = pd.DataFrame(blocks, columns=explorer.BLOCK)
    return table.assign(value=0.1 * table.block_size, standard_error=0.01)


def in_browser(file: Path, program: str) -> list[float]:
    with sync_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=switches)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(file.as_uri())
        page.locator("#right .count .main-svg").first.wait_for()
        return [page.evaluate(REDRAW, size) for size in range(1, LAYERS, 3)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.redraw", description=__doc__)
    parser.parse_args(argv)
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("No Chromium on this machine (Debian: apt-get install chromium).", file=sys.stderr)
        return 2
    maps = {
        f"model {seed}": explorer.Explored(str(seed), distance_map(seed), damage=damage_map())
        for seed in range(2)
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explorer.html"
        file.write_text(explorer.page(maps), encoding="utf-8")
        print(f"2 maps of {LAYERS} layers with damage: {file.stat().st_size:,} bytes")
        times = in_browser(file, program)
    middle, most = statistics.median(times), max(times)
    print(f"Chromium: median {middle:.0f} ms, most {most:.0f} ms of {len(times)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
