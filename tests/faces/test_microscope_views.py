"""Every view of the microscope in a real browser: what it shows is what the documents say.

``--screenshots`` writes the pictures of the docs.
"""

import json
import subprocess
from pathlib import Path

import pytest
from faces.paged import VIEWS, Page, command, needs_browser
from looked_into import FILTERED, FORKED, SEARCHED, STORY, params

from openwork import LLM, SamplingParams
from openwork.cli.seeing import Seeing
from openwork.testing.checkpoint import ARCHITECTURES, write_checkpoint

DOCS = Path(__file__).parents[2] / "docs" / "microscope"

needs_browser()


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


def test_what_is_shown_is_what_the_documents_say(file_of, open_page, seen_recording):
    page = open_page(file_of(FILTERED))
    told = json.loads(
        subprocess.run(
            command(FILTERED, "--record", seen_recording, "--json"),
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
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


def test_a_search_shows_its_tree(file_of, open_page):
    page = open_page(file_of(SEARCHED))
    page.press("6")
    assert "nothing scores higher" in page.text("#caption")
    assert page.it.locator("#panel-search svg rect").count() > 20
    assert page.it.locator("#panel-search table tbody tr").count() == 3


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


@pytest.fixture(scope="module")
def guessed(tmp_path_factory):
    """A recording with guesses ahead, right ones and wrong ones, and the page of its request."""
    at = tmp_path_factory.mktemp("guessed")
    with LLM(record=at / "recording", speculate="ngram") as llm:
        llm.generate(["Tom and Sam like to"], SamplingParams(max_tokens=80, temperature=0))
    with Seeing(at / "recording") as seeing:
        (at / "page.html").write_text(seeing.file("0", 4 << 20), encoding="utf-8")
        return seeing.view("0").document("request"), at / "page.html"


def test_guesses_are_drawn_right_ones_and_those_in_vain(guessed, open_page):
    told, path = guessed
    vain = [each for each in told["guesses"] if each["rows_for_nothing"]]
    right = [each for each in told["guesses"] if each["accepted"]]
    assert vain and right
    account, said = told["account"]["guessed"], told["sequences"][0]["ids"]
    assert sum(len(each["ids"]) for each in told["guesses"]) == account["drafted"]
    assert sum(each["accepted"] for each in told["guesses"]) == account["accepted"]
    for each in told["guesses"]:
        place = each["first"] - len(told["prompt"]["ids"])
        assert said[place : place + each["accepted"]] == each["ids"][: each["accepted"]]
        assert said[place + each["accepted"] :][:1] in ([], [each["instead"]["id"]])
    page = open_page(path)
    page.press("4")
    assert page.it.locator("#panel-tokens .strip .foretold").count() == sum(each["accepted"] for each in right)
    assert page.it.locator("#panel-tokens .strip .vain").count() == len(vain)
    plate = page.it.locator("#panel-tokens .plate", has_text="What was guessed ahead").last
    facts = plate.locator(".facts dd").all_inner_texts()
    assert facts[2] == str(sum(each["rows_for_nothing"] for each in told["guesses"]))
    page.press("1")
    page.it.evaluate(f"see.cursor.set({{position: {vain[-1]['first'] - 1}}})")
    page.settle()
    assert page.it.locator("#panel-decoding .guess").count() == len(vain[-1]["ids"])
    assert page.it.locator("#panel-decoding .guess.true").count() == vain[-1]["accepted"]
    page.press("8")
    assert "guessed in vain" in page.text("#panel-timeline")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_view_is_drawn_for_every_architecture(architecture, open_page, tmp_path):
    """Sliding windows, heads of other sizes, no rope, parallel blocks: nothing is left empty, nothing goes wrong."""
    model = write_checkpoint(tmp_path / "model", architecture, eos_token_id=None)
    with LLM(model, kv_cache_bytes=1 << 20, record=tmp_path / "recording") as llm:
        llm.generate([[3 + i * 7 % 250 for i in range(40)]] * 2, SamplingParams(max_tokens=4, temperature=1))
    with Seeing(tmp_path / "recording") as seeing:
        (tmp_path / "page.html").write_text(seeing.file("0", 8 << 20), encoding="utf-8")
    page = open_page(tmp_path / "page.html")
    for place, view in enumerate(VIEWS, 1):
        page.press(str(place))
        panel = page.it.locator(f"#panel-{view}")
        wrong = [each for each in panel.locator(".missing:visible").all_inner_texts() if "Ceilings" not in each]
        assert (view == "search") == bool(wrong), (view, wrong)
        assert page.text("#caption"), view
    page.press("2", "]", "]", ".", ".")
    assert page.it.locator("#panel-composition svg[role=img]").count() > 4
    heard = page.it.locator("#panel-composition canvas").first.get_attribute("aria-label")
    assert f"over {page.at('position') + 1} positions" in heard


def test_screenshots(request, seen_recording, chromium, tmp_path):
    if not request.config.getoption("--screenshots"):
        pytest.skip("--screenshots writes them")
    DOCS.mkdir(exist_ok=True)
    pages = {id: tmp_path / f"{id}.html" for id in (FILTERED, SEARCHED)}
    for id, path in pages.items():
        subprocess.run(command(id, "--record", seen_recording, "--html", path, "--ceilings"), check=True, timeout=300)
    with LLM(record=tmp_path / "elsewhere", backend="reference") as llm:
        llm.generate([STORY + "One day, she found a key"], params(top_k=40, top_p=0.9))
    pages["diff"] = tmp_path / "diff.html"
    beside = ("--against", "0", "--against-record", tmp_path / "elsewhere")
    subprocess.run(command(FILTERED, "--record", seen_recording, *beside, "--html", pages["diff"]), check=True)
    for theme in ("light", "dark"):
        for place, view in enumerate(VIEWS, 1):
            id = {"search": SEARCHED, "diff": "diff"}.get(view, FILTERED)
            page = Page(chromium, pages[id].as_uri(), color_scheme=theme)
            page.it.evaluate("see.cursor.set({position: see.cursor.first + 9, layer: 3, head: 2})")
            page.press(str(place))
            path = DOCS / f"{view}-{theme}.png"
            page.it.screenshot(path=path)
            page.context.close()
            assert path.stat().st_size < 300_000
