"""The picture of the explorer: `python -m scripts.explorer` takes figures/overnight/explorer.png.

In the system's Chromium, of the recorded run, at the first of its links. explorer.sha256 beside it
is the digest of what the picture shows; tests/test_explorer.py tells when that has changed.
"""

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from replication import explore, paths, profiles
from replication.figures import explorer

PICTURE = paths.ROOT / "figures" / profiles.RECORDED / "explorer.png"
DIGEST = PICTURE.with_suffix(".sha256")
WINDOW = {"width": 1300, "height": 1120}
SHOWN = ("layers", "source", "distance", "damage")  # of each map, beside its chosen block


def digest(contents: dict) -> str:
    """sha256 of what the picture shows of `explorer.contents`."""
    look = contents["looks"][0]
    block = "{l},{n}".format(**look["state"])
    compared = [[other["name"], other["text"]] for other in contents["looks"]] + [look["state"]]
    for label in contents["opened"]:
        of_map = contents["maps"][label]
        compared.append([of_map.get(name) for name in SHOWN])
        compared += [of_map["scores"].get(block), of_map["texts"].get(block)]
    return hashlib.sha256(json.dumps(compared).encode()).hexdigest()


def take(program: str) -> None:
    """Write the picture, and the digest of what it shows."""
    maps = explore.maps(own=False)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "explorer.html"
        file.write_text(explorer.page(maps), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)
        page.goto(file.as_uri())
        page.locator(".looks a").first.click()
        page.locator("h1").hover()  # nothing is under the mouse
        page.screenshot(path=PICTURE)
    DIGEST.write_text(digest(explorer.contents(maps)) + "\n")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.explorer", description=__doc__)
    parser.parse_args(argv)
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        print("No Chromium on this machine (Debian: apt-get install chromium).", file=sys.stderr)
        return 2
    take(program)
    return 0


if __name__ == "__main__":
    sys.exit(main())
