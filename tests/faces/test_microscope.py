"""The page of the microscope in a real browser, over a real recording: every view, the keys, the pointer, the numbers.

It needs Debian's chromium and playwright, and is skipped where they are not. ``--screenshots`` writes the docs' own.
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import looked_into
import pytest
from looked_into import BOUND, FILTERED, FORKED, HOSTILE_ID, SEARCHED

from openwork import LLM, SamplingParams
from openwork.cli.seeing import Seeing
from openwork.testing.checkpoint import write_checkpoint

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

VIEWS = ("decoding", "composition", "cache", "tokens", "lens", "search", "phases", "timeline", "diff")
WAIT_MS = 60_000  # a bound and no measure: this machine may be busy
DOCS = Path(__file__).parents[2] / "docs" / "microscope"


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return looked_into.record(tmp_path_factory.mktemp("recording"))


def command(*arguments):
    return [sys.executable, "-m", "openwork", "see", *map(str, arguments)]


@pytest.fixture(scope="module")
def file_of(recording, tmp_path_factory):
    """The page of a request in a file: whole, or with so many bytes, or without a model."""
    made = {}
    with contextlib.ExitStack() as stack:
        seeing = {each: stack.enter_context(Seeing(recording, has_model=each)) for each in (True, False)}

        def at(id, max_bytes=8 << 20, has_model=True):
            if (id, max_bytes, has_model) not in made:
                path = made[(id, max_bytes, has_model)] = tmp_path_factory.mktemp("pages") / "page.html"
                path.write_text(seeing[has_model].file(id, max_bytes), encoding="utf-8")
            return made[(id, max_bytes, has_model)]

        yield at


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as it:
        browser = it.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """A page, and everything that went wrong on it."""

    def __init__(self, chromium, address, **how):
        self.context = chromium.new_context(viewport={"width": 1440, "height": 1000}, reduced_motion="reduce", **how)
        self.it = self.context.new_page()
        self.it.set_default_timeout(WAIT_MS)
        self.wrong, self.asked = [], []
        self.it.on("console", lambda said: self.wrong.append(said.text) if said.type in ("error", "warning") else None)
        self.it.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.it.on("request", lambda request: self.asked.append(request.url))
        self.it.goto(address)
        self.it.wait_for_selector("html[data-ready=true]")
        self.settle()

    def settle(self):
        self.it.evaluate("async () => { for (let last = null; last !== see.drawn;) { last = see.drawn; await last; } }")

    def until(self, expression):
        """Wait until it holds; the page's own policy forbids to have the browser do so."""
        for _ in range(WAIT_MS // 50):
            if self.it.evaluate(expression):
                return
            self.it.wait_for_timeout(50)
        raise AssertionError(expression)

    def press(self, *keys):
        for key in keys:
            self.it.keyboard.press(key)
        self.settle()

    def at(self, name):
        return self.it.evaluate(f"see.cursor.{name}")

    def text(self, selector):
        return self.it.locator(selector).first.inner_text()


@pytest.fixture
def open_page(chromium):
    pages = []

    def opened(address, **how):
        address = address.as_uri() if isinstance(address, Path) else address
        pages.append(Page(chromium, address, **how))
        return pages[-1]

    yield opened
    for page in pages:
        wrong = page.wrong
        page.context.close()
        assert wrong == [], "the browser complained"


@pytest.fixture
def live(recording):
    """The address of a page that a process of its own serves."""
    with contextlib.ExitStack() as stack:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = stack.enter_context(
            subprocess.Popen(
                command(FILTERED, "--record", recording), stdout=subprocess.PIPE, text=True, env=environment
            )
        )
        stack.callback(process.terminate)
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))
        yield address


def test_every_view_shows_the_recording_and_loads_nothing(file_of, open_page):
    page = open_page(file_of(FORKED))
    for place, view in enumerate(VIEWS, 1):
        page.press(str(place))
        panel = page.it.locator(f"#panel-{view}")
        assert panel.is_visible() and page.it.locator("[role=tabpanel]:visible").count() == 1
        assert page.it.locator(f"#tab-{view}").get_attribute("aria-selected") == "true"
        wrong = [each for each in panel.locator(".missing:visible").all_inner_texts() if view != "search"]
        assert all("Ceilings" in each for each in wrong), (view, wrong)
        assert page.text("#caption"), view
        assert panel.locator("svg, canvas, table").count() or view == "search"
    assert page.asked == [file_of(FORKED).as_uri()], "nothing was asked of anybody"


def test_what_is_shown_is_what_the_documents_say(file_of, open_page, recording):
    page = open_page(file_of(FILTERED))
    told = json.loads(
        subprocess.run(
            command(FILTERED, "--record", recording, "--json"), capture_output=True, text=True, timeout=120, check=True
        ).stdout
    )
    position = len(told["request"]["prompt"]["ids"]) + 4
    row = told[f"row/0/{position}"]
    assert row == page.it.evaluate(f"see.documents.page.documents['row/0/{position}']"), "one set of documents"
    page.press("4")
    page.it.evaluate(f"see.cursor.set({{position: {position}}})")
    page.settle()
    first = page.it.locator("#panel-tokens tbody tr").first.inner_text().split("\t")
    assert first[0] == str(row["top"][0]["rank"]) and first[1].replace("␣", " ").startswith(row["top"][0]["text"])
    assert first[2] == page.it.evaluate(f"see.percent(Math.exp({row['top'][0]['logprob']}))")
    cuts = page.it.locator("#panel-tokens .tag").all_inner_texts()
    assert {"top_k", "top_p"} <= set(cuts)
    assert page.text("#panel-tokens .facts >> text=/ of 24/") == f" of {len(told['request']['sequences'][0]['ids'])}"


def test_keys_step_jump_and_choose(file_of, open_page):
    page = open_page(file_of(FORKED))
    first = page.at("first")
    page.press("End")
    assert page.at("position") == page.at("last")
    page.press("Home", "ArrowRight", "ArrowRight", "ArrowLeft")
    assert page.at("position") == first + 1
    page.press("]", "]", "[", ".", ".", ",")
    assert (page.at("layer"), page.at("head")) == (4, 1)
    page.press("n")
    assert page.at("sequence") == 1
    page.press("/")
    page.it.keyboard.type("Lily")
    page.press("Enter")
    assert "Lily" in page.it.evaluate("see.cursor.text(see.cursor.position)")
    page.press("/")
    page.it.keyboard.type("3")
    page.press("Enter")
    assert page.at("position") == 3
    page.press("?")
    assert page.it.locator("#help").is_visible()
    page.press("Escape")
    assert not page.it.locator("#help").is_visible()
    theme = page.it.evaluate("document.documentElement.dataset.theme")
    page.press("t")
    assert page.it.evaluate("document.documentElement.dataset.theme") != theme
    page.it.locator("#tab-decoding").focus()
    page.press("ArrowDown")
    assert page.at("view") == 1


def test_it_plays_and_pauses_and_is_scrubbed(file_of, open_page):
    page = open_page(file_of(FILTERED))
    page.it.evaluate("see.cursor.set({rate: 12})")
    page.press("Home", " ")
    page.until("see.cursor.position >= see.cursor.first + 3")
    page.press(" ")
    stopped = page.at("position")
    page.it.wait_for_timeout(400)
    assert page.at("position") == stopped
    box = page.it.locator("#scrub").bounding_box()
    page.it.mouse.move(box["x"] + 5, box["y"] + 15)
    page.it.mouse.down()
    page.it.mouse.move(box["x"] + box["width"] / 2, box["y"] + 15)
    page.it.mouse.up()
    assert page.at("position") == pytest.approx(page.at("last") / 2, abs=1)
    assert page.it.locator("#scrub").get_attribute("aria-valuenow") == str(page.at("position"))
    page.it.evaluate("see.cursor.set({position: see.cursor.last})")
    page.press(" ")
    assert page.at("position") < page.at("last"), "from the end it begins anew"
    page.press(" ")


def test_clicks_lead_somewhere(file_of, open_page):
    page = open_page(file_of(FORKED))
    page.press("2")
    page.it.locator("#panel-composition svg g").last.click()
    assert (page.at("layer"), page.at("head")) == (5, 7)
    page.press("4")
    page.it.locator("#panel-tokens .strip button").nth(page.at("first") + 3).click()
    assert page.at("position") == page.at("first") + 2
    page.press("5")
    page.it.locator("#panel-lens td button:not([disabled])").first.click()
    page.settle()
    assert page.at("layer") == 5
    page.press("3")
    canvas = page.it.locator("#panel-cache canvas").bounding_box()
    page.it.mouse.click(canvas["x"] + canvas["width"] * 0.6, canvas["y"] + 20)
    page.press("9")
    page.it.locator("#beside").select_option(BOUND)
    page.settle()
    assert "position 1" in page.text("#caption")


def test_a_search_shows_its_tree(file_of, open_page):
    page = open_page(file_of(SEARCHED))
    page.press("6")
    assert "nothing scores higher" in page.text("#caption")
    assert page.it.locator("#panel-search svg rect").count() > 20
    assert page.it.locator("#panel-search table tbody tr").count() == 3


def test_hostile_text_stays_text(file_of, open_page):
    path = file_of(HOSTILE_ID)
    source = path.read_text(encoding="utf-8")
    assert source.count("<script") == source.count("</script>") == 1 + len(re.findall("<script>", source))
    assert "onerror=" not in source or "<img" not in source
    page = open_page(path)
    for place in range(1, 10):
        page.press(str(place))
        assert "taken" not in page.it.title()
        assert page.it.locator("main img, main script").count() == 0
    page.press("4")
    assert "onerror" in page.text("#panel-tokens .strip")


def test_nothing_else_would_run(file_of, open_page):
    page = open_page(file_of(BOUND))
    add = "const it = document.createElement('script'); it.textContent = 'window.taken = 1'; document.body.append(it);"
    page.it.evaluate(f"() => {{ {add} }}")
    assert page.it.evaluate("window.taken") is None
    assert any("Content Security Policy" in each for each in page.wrong)
    page.wrong.clear()


def test_a_live_page_asks_its_server_and_forks(live, open_page):
    page = open_page(live)
    assert "key=" not in page.it.url, "the key does not stay in the address"
    assert {each.split("/see")[0] for each in page.asked} == {live.split("/see")[0]}
    page.press("4", "Home", "ArrowRight")
    buttons = page.it.locator("button.fork")
    assert buttons.count() >= 10
    buttons.nth(1).click()
    page.it.wait_for_selector(".branch-line")
    page.settle()
    assert page.it.locator(".branch-line .branch").count() > 5
    assert f"Branch at position {page.at('position') + 1}" in page.text(".branch-line h4")
    page.it.locator("#request").select_option(FORKED)
    page.until(f"see.cursor.told && see.cursor.told.id === '{FORKED}'")
    page.settle()
    for place in range(1, 10):
        page.press(str(place))


def test_a_live_page_without_its_key_shows_nothing(live, open_page):
    page = open_page(live.split("#")[0])
    page.it.wait_for_selector("#key[open]")
    assert page.it.locator("#which div").count() == 0
    page.it.locator("#key-value").fill(live.split("key=")[1])
    page.it.keyboard.press("Enter")
    page.until("see.cursor.told !== null")
    page.settle()
    page.wrong[:] = [each for each in page.wrong if "401" not in each]


LEGIBLE = (Path(__file__).parent / "legible.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_has_a_name_and_can_be_read(file_of, open_page, theme):
    for id in (FILTERED, SEARCHED):
        page = open_page(file_of(id), color_scheme=theme)
        assert page.it.evaluate("document.documentElement.dataset.theme") == theme
        for place in range(1, 10):
            page.press(str(place))
            assert page.it.evaluate(LEGIBLE) == {"nameless": [], "faint": [], "twice": []}, (place, id)


def test_it_can_be_used_without_a_pointer(file_of, open_page):
    page = open_page(file_of(FILTERED))
    reached = set()
    for _ in range(40):
        page.it.keyboard.press("Tab")
        reached.add(page.it.evaluate("document.activeElement.id"))
    assert {"tab-decoding", "theme", "helps", "play", "back", "forth", "jump", "scrub", "layer", "head"} <= reached


def test_a_small_window_hides_nothing(file_of, open_page):
    page = open_page(file_of(FILTERED))
    page.it.set_viewport_size({"width": 640, "height": 900})
    page.settle()
    for place in range(1, 10):
        page.press(str(place))
        assert page.it.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), place


def test_what_is_not_in_the_file_says_so(file_of, open_page):
    page = open_page(file_of(FORKED, 300_000))
    page.it.evaluate("see.cursor.set({view: 1, position: 2})")
    page.settle()
    assert "This file holds" in page.text("#panel-composition .missing")
    bare = open_page(file_of(FORKED, has_model=False))
    bare.press("1")
    assert "No model was opened" in bare.text("#panel-decoding .missing")
    bare.press("8")
    assert bare.it.locator("#panel-timeline canvas").first.is_visible()


def test_a_long_context_is_drawn_in_bounded_pieces(chromium, open_page, tmp_path):
    """Four thousand positions: what is drawn does not grow with them."""
    model = write_checkpoint(tmp_path / "model", max_position_embeddings=4200)
    with LLM(model, context=4160, kv_cache_bytes=4 << 20, record=tmp_path / "recording") as llm:
        llm.generate(
            [[3 + i % 250 for i in range(4096)]], SamplingParams(max_tokens=12, temperature=1, ignore_eos=True)
        )
    with Seeing(tmp_path / "recording") as seeing:
        (tmp_path / "long.html").write_text(seeing.file("0", 4 << 20), encoding="utf-8")
    page = open_page(tmp_path / "long.html")
    assert page.at("promptLength") == 4096
    for place, view in enumerate(VIEWS, 1):
        page.press(str(place), "ArrowRight")
        if view not in ("search", "diff"):  # it is no search, and there is no other request
            assert page.it.locator(f"#panel-{view}").locator("svg, canvas, table").count(), view
        assert page.it.locator(f"#panel-{view} *").count() < 4500, view
    page.press("/")
    page.it.keyboard.type("4000")
    page.press("Enter")
    assert page.at("position") == 4000


def test_screenshots(request, recording, chromium, tmp_path):
    if not request.config.getoption("--screenshots"):
        pytest.skip("--screenshots writes them")
    DOCS.mkdir(exist_ok=True)
    pages = {id: tmp_path / f"{id}.html" for id in (FILTERED, SEARCHED)}
    for id, path in pages.items():
        subprocess.run(command(id, "--record", recording, "--html", path, "--ceilings"), check=True, timeout=300)
    for theme in ("light", "dark"):
        for place, view in enumerate(VIEWS, 1):
            id = SEARCHED if view == "search" else FILTERED
            page = Page(chromium, pages[id].as_uri(), color_scheme=theme)
            page.it.evaluate("see.cursor.set({position: see.cursor.first + 9, layer: 3, head: 2})")
            page.press(str(place))
            path = DOCS / f"{view}-{theme}.png"
            page.it.screenshot(path=path)
            page.context.close()
            assert path.stat().st_size < 300_000
