"""The page of the microscope while a server is behind it: keys, forks, windows on demand, another recording."""

from faces.paged import needs_browser
from looked_into import ALONE, FORKED

from openwork import LLM, SamplingParams
from openwork.cli.seeing import Seeing

needs_browser()


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


def test_two_recordings_stand_side_by_side(seen_recording, open_page, tmp_path):
    prompt = Seeing(seen_recording).recording.request(ALONE).request.prompt
    with LLM(record=tmp_path / "other", dtype="float32", kv_dtype="float32") as llm:
        llm.generate([list(prompt)], SamplingParams(max_tokens=8, temperature=0))
    with Seeing(seen_recording, against="0", against_record=tmp_path / "other") as seeing:
        (tmp_path / "both.html").write_text(seeing.file(ALONE, 2 << 20), encoding="utf-8")
    page = open_page(tmp_path / "both.html")
    assert page.it.locator("#tab-diff").get_attribute("aria-selected") == "true", "that is what was asked for"
    assert "row of logits" in page.text("#caption")
    leads = page.it.locator("#panel-diff .lead").all_inner_texts()
    assert f"position {len(prompt) - 1}" in leads[0], "what the recordings say by themselves: hashes of drawn rows"
    assert leads[-1].startswith("At position 0,"), "and what both sides computed again say"
    assert page.it.locator("#panel-diff .tag", has_text="as served").count() == 2
    assert page.it.locator("#panel-diff .tag", has_text="differs").count() >= 2


def test_steps_elsewhere_are_asked_for_and_lead_back(tmp_path, open_page, serve_page):
    with LLM(record=tmp_path / "recording") as llm:
        for seed in range(3):
            llm.generate(["The cat"] * 2, SamplingParams(max_tokens=220, temperature=1, seed=seed, ignore_eos=True))
    page = open_page(serve_page("0", tmp_path / "recording"))
    page.press("8")
    slider = page.it.locator("#panel-timeline [role=slider]")
    assert slider.get_attribute("aria-valuenow") == "0"
    slider.focus()
    page.press("End")
    assert int(slider.get_attribute("aria-valuenow")) > 0
    back = page.it.locator("#panel-timeline").get_by_text("back to this request")
    back.click()
    page.settle()
    assert slider.get_attribute("aria-valuenow") == "0" and back.is_hidden()
    assert any("/timeline/" in each for each in page.asked)
    whole = page.it.locator("#panel-timeline").get_by_text("the whole recording")
    whole.click()
    page.settle()
    assert any("/timeline/all/0/" in each for each in page.asked) and whole.is_hidden()
    back.click()
    page.settle()
    assert back.is_hidden() and not whole.is_hidden()


def test_requests_that_are_not_listed_are_counted(live, open_page):
    """The server is played here: it has more requests than it lists."""
    page = open_page(live)

    def longer(route):
        told = route.fetch().json()
        route.fulfill(json=told | {"left_out": 1500})

    page.it.route("**/api/requests", longer)
    page.it.goto("about:blank")  # it keeps its key to itself, and forgets it when it is loaded again
    page.it.goto(live)
    page.it.wait_for_selector("html[data-ready=true]")
    page.press("9")
    assert "1,500 others of this recording are not listed here." in page.text("#panel-diff")
    assert "1,500 before these" in page.it.locator("#request").inner_html()


def test_a_long_answer_says_how_far_it_is(live, open_page):
    """The server is played here: its answer to one document waits until the page has asked how far it is."""
    page = open_page(live)
    asked = []

    def held(route):
        asked.append(route)

    page.it.route("**/layer/0/3/*", held)
    told = '{"stage": "prefill", "done": 1536, "total": 4096}'
    page.it.route("**/progress", lambda route: route.fulfill(body=told, content_type="application/json"))
    page.it.evaluate("() => { see.cursor.set({view: 1, position: 3}); }")
    page.until("!document.getElementById('wait').hidden")
    bar = page.it.locator("#wait")
    assert bar.get_attribute("aria-valuenow") == "38"
    assert "1,536 of 4,096 positions" in bar.inner_text()
    for route in asked:
        route.continue_()
    page.it.unroute("**/layer/0/3/*")
    page.settle()
    page.until("document.getElementById('wait').hidden")
