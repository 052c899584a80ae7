"""The picture of the explorer: `python -m scripts.explorer` takes figures/overnight/explorer.png.

In the system's Chromium, of the recorded run, at the first of its links.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from replication import paths, profiles
from replication.show import explorer

PICTURE = paths.ROOT / "figures" / profiles.RECORDED / "explorer.png"
WINDOW = {"width": 1300, "height": 1120}


def take(program: str) -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "explorer.html"
        file.write_text(explorer.page(explorer.maps(own=False)), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport=WINDOW)
        page.goto(file.as_uri())
        page.locator(".looks a").first.click()
        page.locator("h1").hover()  # nothing is under the mouse
        page.screenshot(path=PICTURE)


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
