"""`python -m benchmarks.redraw`: milliseconds until the explorer of two models has redrawn.

Two maps of 80 layers, the depth of Llama-2-70B, each with a damage map. In Chromium: from the
slider's change to the second frame after it. In the kernel: the slider's callback.
"""

import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from playwright.sync_api import sync_playwright

from lib import paths, profiles
from lib.blocks import BlockDistances
from lib.figures import explorer

LAYERS = 80
LIMIT = 200  # ms
REDRAW = """async step => {
    const drawing = document.querySelector(".js-plotly-plot");
    const frame = () => new Promise(requestAnimationFrame);
    const start = performance.now();
    await Plotly.update(drawing, ...drawing.layout.sliders[0].steps[step].args);
    await frame();
    await frame();
    return performance.now() - start;
}"""


def distance_map(seed: int) -> BlockDistances:
    """Distances that grow with n and fall with depth, with some noise."""
    start, stop = np.mgrid[: LAYERS + 1, : LAYERS + 1]
    upper = np.triu(0.05 * np.sqrt(np.maximum(stop - start, 0)) * (1.2 - start / LAYERS), 1)
    noise = 0.002 * np.triu(np.random.default_rng(seed).standard_normal((16, *upper.shape)), 1)
    folds = upper + noise
    folds += folds.transpose(0, 2, 1)
    return BlockDistances(folds.mean(0), folds.std(0) / 4, folds, 256)


def damage_map() -> pd.DataFrame:
    blocks = [(l, n) for n in range(1, LAYERS) for l in range(LAYERS - n + 1)]
    table = pd.DataFrame(blocks, columns=["block_start", "block_size"])
    return table.assign(value=0.1 * table.block_size)


def in_browser(file: Path) -> list[float]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, args=switches)
        page = browser.new_page(viewport={"width": 1300, "height": 1000})
        page.goto(file.as_uri())
        page.locator(".slider-rail-touch-rect").wait_for()
        return [page.evaluate(REDRAW, step) for step in range(0, LAYERS - 1, 3)]


def in_kernel(maps: dict, damage: dict) -> list[float]:
    controls, _ = explorer.explore(maps, damage).children
    seconds = []
    for size in range(1, LAYERS, 3):
        start = time.perf_counter()
        controls.children[0].value = size
        seconds.append(time.perf_counter() - start)
    return [1000 * s for s in seconds]


def main() -> None:
    maps = {f"model {i}": distance_map(i) for i in range(2)}
    damage = {name: damage_map() for name in maps}
    with tempfile.TemporaryDirectory() as folder:
        paths.FIGURES = Path(folder)
        profile = replace(profiles.get("smoke"), name="benchmark")
        file = explorer.save_html(maps, profile, damage)
        print(
            f"explorer.html, 2 maps of {LAYERS} layers with damage: {file.stat().st_size:,} bytes"
        )
        timed = {"Chromium": in_browser(file), "kernel": in_kernel(maps, damage)}
    for place, times in timed.items():
        middle, most = statistics.median(times), max(times)
        print(f"{place}: median {middle:.0f} ms, most {most:.0f} ms of {len(times)} (≤ {LIMIT})")


if __name__ == "__main__":
    main()
