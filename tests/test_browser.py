"""The explorer in a real Chromium: as a notebook in JupyterLab, and as a file without a network."""

import pytest
from playwright.sync_api import expect

from lib import storage
from replication import paths
from replication.analysis import islands
from replication.show import explorer

pytestmark = pytest.mark.real
QWEN, LARGER, SMOLLM = (
    f"{name} (recorded run overnight)"
    for name in ("Qwen2.5-Coder-0.5B", "Qwen2.5-Coder-1.5B", "SmolLM2-135M")
)
BLOCK = """([side, l, n]) => {
    const plot = document.querySelector(`#${side} .map`), {xaxis, yaxis, _size} = plot._fullLayout;
    const box = plot.getBoundingClientRect();
    return [box.x + _size.l + xaxis.d2p(l), box.y + _size.t + yaxis.d2p(n)];
}"""


@pytest.fixture
def page(chromium):
    """A window that remembers its requests and its errors."""
    window = chromium.new_page(viewport={"width": 1300, "height": 1000})
    window.addresses, window.errors = [], []
    window.on("request", lambda request: window.addresses.append(request.url))
    window.on("pageerror", lambda error: window.errors.append(str(error)))
    window.on("console", lambda m: m.type == "error" and window.errors.append(m.text))
    yield window
    window.close()


def outlined(page, side: str) -> int:
    """How many islands the map of a side has outlined."""
    return page.locator(f"#{side} .map .trace:has(path[style*='rgb(224, 16, 157)'])").count()


def test_file_shows_what_is_chosen_and_keeps_it_in_its_link(page, output):
    maps = explorer.maps()
    file = paths.FIGURES / "explorer.html"
    storage.atomic_write(file, explorer.page(maps).encode())
    page.goto(file.as_uri())
    expect(page.locator("#left .name")).to_have_text(LARGER)
    expect(page.locator("#right .name")).to_have_text(SMOLLM)
    card = page.locator("#left .card")
    expect(card).to_contain_text("Block(12, 5) drops layers 12 to 16 of 28")

    page.locator("[name=left]").select_option(SMOLLM)  # any two of the maps
    page.locator("[name=right]").select_option(QWEN)
    page.mouse.click(*page.evaluate(BLOCK, ["left", 10, 9]))
    expect(card).to_contain_text("Block(10, 9) drops layers 10 to 18 of 30")
    smollm = maps[SMOLLM]
    rise = smollm.damage.set_index(explorer.BLOCK).loc[(10, 9)]
    expect(card).to_contain_text(f"{rise.value:.4f}\u00a0±\u00a0{rise.standard_error:.4f} nats")
    score = smollm.scores.set_index([*explorer.BLOCK, "task", "shots", "treatment"]).value
    healed = score.loc[(10, 9, "arc_easy", ", 0-shot", "healed for 16 steps, rank 8")]
    expect(card).to_contain_text(f"healed for 16 steps, rank 8 {healed:.3f}")
    for text, whole in zip(smollm.texts[10, 9], smollm.texts[0, 0], strict=True):
        for written in (text, whole):
            words = written.split()
            expect(card).to_contain_text(f"… {' '.join(words)}" if words else "… (nothing)")
    expect(page.locator(".hoverlayer .hovertext")).to_contain_text("drops layers 10 to 18")
    expect(page.locator("#right .card")).to_contain_text("Block(10, 9) drops layers 10 to 18 of 24")

    for threshold in (0.1, 0.03):  # islands are those of Python, drawn and told
        page.locator("[name=threshold]").fill(str(threshold))
        for side, name in {"left": SMOLLM, "right": QWEN}.items():
            count = len(islands.islands(maps[name].distances, threshold))
            expect(page.locator(f"#{side} .found tr[data-l]")).to_have_count(count)
            assert outlined(page, side) == count
    row = page.locator("#left .found tr[data-l]").first
    first = islands.islands(smollm.distances, 0.03).iloc[0]
    expect(row).to_contain_text(f"Block({first.block_start}, {first.block_size})")
    expect(row).to_contain_text(f"{first.stability:.2f}")

    for box in ("relative", "without", "difference"):
        page.locator(f"[name={box}]").check()
    page.locator("[name=view]").select_option("damage: rise of the C4 loss, nats")
    expect(page.locator("#right .card")).to_contain_text("Block(8, 7) drops")  # of 24 layers
    expect(page.locator("#difference")).to_contain_text("right minus left")
    link, texts = page.url, [page.locator(side).inner_text() for side in ("#left", "#right")]
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#difference")).to_contain_text("right minus left")
    assert [page.locator(side).inner_text() for side in ("#left", "#right")] == texts
    assert page.url == link and page.locator("[name=without]").is_checked()

    page.goto(f"{file.as_uri()}#left=gone&n=3&l=5")  # a map that this file does not have
    expect(card).to_contain_text("Block(5, 3) drops layers 5 to 7")
    assert {address.partition("#")[0] for address in page.addresses} == {file.as_uri()}
    assert page.errors == []
