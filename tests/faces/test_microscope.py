"""The page of the microscope in a real browser: keys, pointer, names and contrast, narrow windows, hostile text."""

import re
from pathlib import Path

import pytest
from faces.paged import needs_browser
from looked_into import BOUND, FILTERED, FORKED, HOSTILE_ID, SEARCHED

needs_browser()


LEGIBLE = (Path(__file__).parent / "legible.js").read_text(encoding="utf-8")


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


@pytest.mark.parametrize("width", [400, 640, 2560])
def test_a_window_of_any_width_hides_nothing(file_of, open_page, width):
    page = open_page(file_of(FILTERED))
    page.it.set_viewport_size({"width": width, "height": 900})
    page.settle()
    for place in range(1, 10):
        page.press(str(place))
        assert page.it.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1"), place
