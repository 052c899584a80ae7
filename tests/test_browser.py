"""The explorer in a real Chromium: as a notebook in JupyterLab, and as a file without a network."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from jupyter_server.serverapp import list_running_servers
from playwright.sync_api import expect, sync_playwright

from lib import paths, profiles
from lib.figures import explorer
from lib.measure import distance_maps
from lib.run import notebooks

pytestmark = pytest.mark.real
SWITCHES = (
    "--no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
SETTINGS = {  # no news from the network; every cell's output is drawn, also out of sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
CURVE = ".scatterlayer .trace path.js-line"


@pytest.fixture(scope="module")
def chromium():
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A window that remembers what it asked the network for, and what went wrong."""
    window = chromium.new_page(viewport={"width": 1300, "height": 1000})
    window.asked, window.errors = [], []
    window.on("request", lambda request: window.asked.append(request.url))
    window.on("pageerror", lambda error: window.errors.append(str(error)))
    window.on("console", lambda m: m.type == "error" and window.errors.append(m.text))
    yield window
    window.close()


def curves(page) -> list[str]:
    return page.locator(CURVE).evaluate_all("paths => paths.map(path => path.getAttribute('d'))")


@pytest.fixture
def file(output) -> Path:
    recorded, provenance = distance_maps.recorded("qwen2.5-coder-0.5b")
    return explorer.save_html({provenance["model"]: recorded}, profiles.get("smoke"))


def test_file_opens_offline_and_its_slider_moves_the_curve(page, file):
    page.goto(file.as_uri())
    text = page.locator(".annotation-text", has_text="drops range")
    expect(text).to_contain_text("n = 4: l* = 10, drops range(10, 14)")
    before = curves(page)
    rail = page.locator(".slider-rail-touch-rect")
    width = rail.bounding_box()["width"]
    rail.click(position={"x": width / 2, "y": 5})
    expect(text).to_contain_text("n = 12: l* = 7, drops range(7, 19)")
    assert curves(page) != before
    page.screenshot(path=file.with_suffix(".png"), full_page=True)
    assert page.asked == [file.as_uri()] and page.errors == []


def test_file_switches_to_raw_distances_and_tells_a_block(page, file):
    page.goto(file.as_uri())
    scale = page.locator(".infolayer .colorbar")
    expect(scale).to_contain_text("rescaled")
    page.locator(".updatemenu-button", has_text="raw").click()
    expect(scale).not_to_contain_text("rescaled")
    box = page.locator(".subplot.xy .gridlayer").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 30)
    hover = page.locator(".hoverlayer .hovertext")
    expect(hover).to_contain_text("drops layers range(")
    expect(hover).to_contain_text("±")
    assert page.errors == []


@pytest.fixture
def jupyter(tmp_path):
    """The address of JupyterLab with notebook 08, set to `smoke`, in an empty folder."""
    name = f"{notebooks.NOTEBOOKS['08'].file}.ipynb"
    notebook = nbformat.read(paths.NOTEBOOKS / name, as_version=4)
    parameters = next(c for c in notebook.cells if c.metadata.get("tags") == ["parameters"])
    parameters.source += '\nPROFILE = "smoke"'
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / name)
    for setting, value in SETTINGS.items():
        target = tmp_path / "settings/@jupyterlab" / f"{setting}.jupyterlab-settings"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(value))
    environment = os.environ | {
        "DEEPER_LAYERS_OUTPUT": str(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "configuration"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
    }
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--IdentityProvider.token="]
    command = [sys.executable, "-m", "jupyterlab", *options, str(tmp_path / "notebooks")]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield f"{_address(server, tmp_path)}lab/tree/{name}"
        finally:
            server.terminate()
            server.wait(timeout=30)


def _address(server: subprocess.Popen, folder: Path) -> str:
    """Where the server listens, once it does."""
    while server.poll() is None:
        for running in list_running_servers(str(folder / "runtime")):
            return running["url"]
        time.sleep(0.2)
    raise RuntimeError((folder / "server.log").read_text())


def test_notebook_in_jupyterlab(page, jupyter, tmp_path):
    page.goto(jupyter)
    page.locator(".jp-Notebook h1").wait_for(timeout=60_000)
    expect(page.locator("#jp-main-statusbar")).to_contain_text("| Idle", timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    text = page.locator(".annotation-text", has_text="drops range").first
    expect(text).to_contain_text("n = 1:", timeout=240_000)
    before = curves(page)
    handle = page.locator(".widget-slider .noUi-handle")
    handle.scroll_into_view_if_needed()
    handle.focus()
    handle.press("ArrowRight")
    handle.press("ArrowRight")
    expect(text).to_contain_text("n = 3: l* = 10, drops range(10, 13)", timeout=30_000)
    assert curves(page) != before
    page.get_by_role("button", name="raw", exact=True).click()
    expect(page.locator(".infolayer .colorbar").first).not_to_contain_text("rescaled")
    page.screenshot(path=tmp_path / "jupyterlab.png")
    expect(page.get_by_text("figures/smoke/explorer.html").first).to_be_attached(timeout=60_000)
    assert page.locator(".jp-OutputArea-output[data-mime-type*=error]").count() == 0
    assert all(url.startswith((jupyter.split("/lab")[0], "data:", "blob:")) for url in page.asked)
