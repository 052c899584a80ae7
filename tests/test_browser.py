"""The explorer, the questions and the sliders of pages in a real Chromium, without a network."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import expect

from lib import storage
from replication import paths
from replication.analysis import islands
from replication.show import explorer, questions, sliders

pytestmark = pytest.mark.real
QWEN = "Qwen2.5-Coder-0.5B (recorded run overnight)"
SMOLLM = "SmolLM2-135M (recorded run overnight)"
BLOCK = """([side, l, n]) => {
    const plot = document.querySelector(`#${side} .map`), {xaxis, yaxis, _size} = plot._fullLayout;
    const box = plot.getBoundingClientRect();
    return [box.x + _size.l + xaxis.d2p(l), box.y + _size.t + yaxis.d2p(n)];
}"""


def sent_maps(folder, maps) -> dict:
    """Write files as strangers send them: of two maps of one name, and what is no map."""
    whole = explorer._map(explorer.ModelMap("m", maps[QWEN].distances, "Weights: w."))
    contents = {"qwen": {"sent": whole}, "empty": {}}
    contents["smollm"] = {"sent": explorer._map(explorer.ModelMap("m", maps[SMOLLM].distances))}
    contents["damaged"] = {"damaged": whole | {"whole": whole["whole"] | {"regions": []}}}
    files = {name: folder / f"{name}.json" for name in contents}
    for name, file in files.items():
        file.write_text(json.dumps(contents[name]))
    return files


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


def test_file_shows_what_is_chosen_and_keeps_it_in_its_link(page, output):
    maps = explorer.maps()
    file = paths.FIGURES / "explorer.html"
    storage.atomic_write(file, explorer.page(maps).encode())
    page.goto(file.as_uri())
    page.locator("[name=left]").select_option(SMOLLM)
    page.locator("[name=right]").select_option(QWEN)
    page.mouse.click(*page.evaluate(BLOCK, ["left", 10, 9]))
    card = page.locator("#left .card")
    expect(card).to_contain_text("Block(10, 9) drops layers 10 to 18 of 30")
    expect(page.locator("#right .card")).to_contain_text("Block(10, 9) drops layers 10 to 18 of 24")

    smollm = maps[SMOLLM]
    rise = smollm.damage.set_index(explorer.BLOCK).loc[(10, 9)]
    expect(card).to_contain_text(f"{rise.value:.4f}\u00a0±\u00a0{rise.standard_error:.4f} nats")
    score = smollm.scores.set_index(explorer.KEY).value
    healed = score.loc[(10, 9, "arc_easy", ", 0-shot", "healed for 16 steps, rank 8")]
    expect(card).to_contain_text(f"healed for 16 steps, rank 8 {healed:.3f}")
    expect(card).to_contain_text(smollm.texts[10, 9][0].strip())
    expect(card).to_contain_text("make prune MODEL=smollm2-135m START=10 LAYERS=9 OUT=smaller")

    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(card).to_contain_text("Block(11, 8) drops layers 11 to 18 of 30")

    sent = sent_maps(output, maps)
    page.locator("#files").set_input_files(sent["qwen"])
    expect(page.locator("#right .name")).to_have_text("sent")
    expect(page.locator("#right .card")).to_contain_text("Block(11, 8) drops layers 11 to 18 of 24")
    page.locator("#files").set_input_files([sent["damaged"], sent["empty"]])
    for name in ("damaged", "empty"):
        expect(page.locator("#said")).to_contain_text(f"{name}.json is no map")
    page.locator("[name=left]").select_option(SMOLLM)
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 400")  # plots follow later
    page.set_viewport_size({"width": 1300, "height": 1000})

    page.locator("[name=threshold]").fill("0.03")  # islands are those of Python
    expected = islands.islands(smollm.distances, 0.03)
    expect(page.locator("#left .found tr[data-l]")).to_have_count(len(expected))

    page.locator("[name=right]").select_option(QWEN)
    page.locator("[name=difference]").check()
    sides = page.locator("#left, #right")
    link, texts = page.url, sides.all_inner_texts()
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#difference")).to_contain_text("right minus left")
    assert sides.all_inner_texts() == texts
    assert {address.partition("#")[0] for address in page.addresses} == {file.as_uri()}
    assert page.errors == []


# of the page: gives it files by their paths' texts, as a hand that drops them
DROP = """files => {
    const data = new DataTransfer();
    for (const [name, text] of files) data.items.add(new File([text], name));
    document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
}"""


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_two_maps_of_strangers_stand_side_by_side_and_each_beside_its_twin(page, output, way):
    """Also two of one name. An island that the growth-only twin has, too, says so."""
    maps = explorer.maps(own=False)
    file, sent = output / "explorer.html", sent_maps(output, maps)
    file.write_text(explorer.page({QWEN: maps[QWEN]}))
    page.goto(file.as_uri())
    files = [sent[name] for name in ("qwen", "smollm")]
    if way == "chosen":
        page.locator("#files").set_input_files(files)
    else:
        page.evaluate(DROP, [[file.name, file.read_text()] for file in files])
    expect(page.locator("#left .name")).to_have_text("sent")
    expect(page.locator("#right .name")).to_have_text("sent, smollm.json")
    expect(page.locator("#left .source")).to_have_text("Weights: w.")
    expect(page.locator("#right .card")).to_contain_text("of 30")
    page.locator("[name=right]").select_option(QWEN)
    page.locator("[name=left]").select_option("sent, smollm.json")
    page.locator("[name=twin]").check()
    expect(page.locator("#right .name")).to_have_text("sent, smollm.json, growth only")
    turns = np.diagonal(maps[SMOLLM].distances.matrix, 1)
    grown = np.arccos(np.prod(np.cos(np.pi * turns[12:21]))) / np.pi  # all below a right angle
    page.mouse.click(*page.evaluate(BLOCK, ["right", 12, 9]))
    expect(page.locator("#right .card")).to_contain_text(f"{grown:.4f}")
    rows = page.locator("#left .found tr[data-l]").all_inner_texts()
    expected = islands.by_growth(maps[SMOLLM].distances.matrix)
    assert [row.split()[-1] for row in rows] == ["yes" if of else "no" for of in expected]
    assert len(rows) > 0
    for width in (1200, 800, 400):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
    assert page.errors == []


# the 1.5B after an early exit of 6 layers, and questions by letter and by content
RECORDED = paths.RECORDED / "overnight"


def recorded(table: str, task: str, strategy: str, n: int) -> dict:
    """The score of the 1.5B in a recorded table, read without this project's code."""
    scores = pd.read_parquet(RECORDED / f"{table}.parquet")
    scores = scores[(scores.model == "qwen2.5-coder-1.5b") & (scores.treatment != "healed")]
    (row,) = scores[
        (scores.task == task) & (scores.strategy == strategy) & (scores.block_size == n)
    ].to_dict("records")
    return row


def letters_of(score: dict, share: float) -> np.ndarray:
    """The place of each answer after subtracting a share of the other folds' means."""
    values = np.stack(list(score["choices"]))
    values, weights = values - values.mean(1, keepdims=True), np.stack(score["weights"])
    said, places = [], np.arange(len(values)) % 5
    for i, row in enumerate(values):
        others = places != i % 5
        mean = (values[others] * weights[others, None]).sum(0) / weights[others].sum()
        said.append(int(np.argmax(row - share * mean)))
    return np.array(said)


def share_right(score: dict, said: np.ndarray) -> float:
    return float(np.average(said == np.array(score["answers"]), weights=score["weights"]))


def test_a_slider_brings_hidden_answers_back(page, output):
    """By mouse and by keys, at 1200 and 400 pixels, without a network. Every number is computed
    anew from the recorded tables."""
    file = output / "questions.html"
    questions.build(file)
    assert file.stat().st_size < 2e6
    page.goto(file.as_uri())
    mmlu = recorded("letter_biases", "mmlu_other", "early exit", 6)
    by_letter = page.locator("#letters")

    def shown(card, score: dict, said: np.ndarray) -> None:
        expect(card.locator(".score")).to_contain_text(f"{share_right(score, said):.2f}")
        counts = np.bincount(said, minlength=4)
        times = f"It says {'ABCD'[counts.argmax()]} {counts.max()} of {len(said)} times."
        expect(card.locator(".commonest")).to_have_text(times)

    as_given = letters_of(mmlu, 0)
    assert (as_given == 0).sum() == 282 and len(as_given) == 285  # what README says
    shown(by_letter, mmlu, as_given)
    whole = recorded("letter_biases", "mmlu_other", "none", 0)
    shown(page.locator("#whole"), whole, letters_of(whole, 0))
    scores = [share_right(of, letters_of(of, share)) for of in (mmlu, whole) for share in (0, 1)]
    was, right = (letters_of(mmlu, share) == np.array(mmlu["answers"]) for share in (0, 1))
    back, gone = (right & ~was).sum(), (was & ~right).sum()
    expect(page.locator("#summary")).to_have_text(
        "After dropping its last 6 layers, the model says A to 282 of 285 multiple-choice "
        "questions. Remove this letter habit, and its score goes from {:.2f} to {:.2f}: {} wrong "
        "answers become right, and {} right answers become wrong. The answers that come back were "
        "hidden, not lost.".format(*scores[:2], back, gone)
    )
    rows = page.locator("#picture .row").all_inner_texts()
    assert [row.split()[-1] for row in rows] == [f"{score:.2f}" for score in scores]
    bars, chances = (
        page.locator(f"#picture {part}").evaluate_all("all => all.map(one => one.style.cssText)")
        for part in ("i", "s")
    )
    widths = [float(bar.removeprefix("width: ").removesuffix("%;")) for bar in bars]
    assert widths == pytest.approx([100 * score for score in scores], rel=1e-3)
    assert chances == ["left: 25%;"] * 4
    expect(page.locator("#content")).to_be_hidden()  # not asked by content
    green = page.locator("#grid button.right")
    assert green.count() == (as_given == np.array(mmlu["answers"])).sum()

    page.locator("[name=strength]").focus()
    page.keyboard.press("End")
    said = letters_of(mmlu, 1)
    shown(by_letter, mmlu, said)
    shown(page.locator("#whole"), whole, letters_of(whole, 1))
    assert share_right(mmlu, said) > share_right(mmlu, as_given) + 0.15
    change = f"{back} wrong ones become right and {gone} right"
    expect(page.locator("#change")).to_contain_text(change)
    page.keyboard.press("ArrowLeft")
    shown(by_letter, mmlu, letters_of(mmlu, 0.95))
    now = share_right(mmlu, letters_of(mmlu, 0.95))
    expect(page.locator("#now")).to_contain_text(f"Now {now:.2f} right")

    page.locator("#grid button").first.focus()  # the arrows move from question to question
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#question")).to_contain_text("Question 3 of 285")
    expect(page.locator("#grid button:focus")).to_have_attribute("data-i", "2")
    page.locator("[name=size]").focus()
    page.keyboard.press("ArrowRight")
    mmlu = recorded("letter_biases", "mmlu_other", "early exit", 7)
    shown(by_letter, mmlu, letters_of(mmlu, 0.95))

    page.locator("[name=set]").select_option("2")  # ARC-Easy, which was asked by content, too
    letters = recorded("forms", "arc_easy_letters", "early exit", 7)
    content = recorded("forms", "arc_easy", "early exit", 7)
    kept = [len(of) == 4 for of in letters["choices"]]
    assert all(kept)
    shown(by_letter, letters, letters_of(letters, 0.95))
    likeliest = np.array([np.argmax(of) for of in content["choices"]])
    right = share_right(content, likeliest)
    assert right == pytest.approx(content["value"], abs=1e-6)  # as recorded
    expect(page.locator("#content .score")).to_contain_text(f"{right:.2f}")
    expect(page.locator("#question .text")).not_to_be_empty()

    page.locator("[name=strategy]").select_option("none")  # no cut: nothing is shown of one
    expect(by_letter).to_be_hidden()
    expect(page.locator("#picture .row")).to_have_count(2)
    page.locator("[name=strategy]").select_option("similarity")
    expect(page.locator("#meaning")).to_contain_text("change the model's state least")

    link, texts = page.url, page.locator(".cards").inner_text()
    page.goto("about:blank")
    page.goto(link)
    assert page.locator(".cards").inner_text() == texts
    page.locator("[name=set]").select_option("0")
    for width in (1200, 400):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
        slider = page.locator("[name=strength]")  # it stays in sight, and the questions are below
        page.locator(".main").evaluate("place => place.scrollIntoView()")
        expect(slider).to_be_in_viewport()
        expect(page.locator("#grid")).to_be_in_viewport(ratio=1)
        expect(page.locator("#grid button")).to_have_count(285)
    assert {address.partition("#")[0] for address in page.addresses} == {file.as_uri()}
    assert page.errors == []


def test_a_slider_shows_the_picture_of_its_value(page, monkeypatch):
    """As a headless run leaves it, on a page without a kernel."""
    monkeypatch.setenv(paths.FRAMES, "1")

    def picture(cut: str, n: int):
        return plt.figure(figsize=(0.2, 0.2))

    box = sliders.slide(picture, cut=["a", "b", "c"], n=[1, 2])
    page.set_content(box._repr_mimebundle_()["text/html"])
    cut, n = page.locator("input").all()
    for place, name in enumerate("abc"):
        for number in (1, 2):
            cut.fill(str(place))
            n.fill(str(number - 1))
            expect(page.locator("img:visible")).to_have_attribute("alt", f"cut {name} n {number} ")
            assert page.locator("output").all_inner_texts() == [name, str(number)]
    assert page.errors == []
