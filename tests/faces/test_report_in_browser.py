"""The report's page in a real browser, in both themes and any width: it can be read, and nothing is asked or said."""

import subprocess
import sys
from pathlib import Path

import pytest
from faces.paged import needs_browser

needs_browser()

LEGIBLE = (Path(__file__).parent / "legible.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def written(seen_recording, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    asked = [sys.executable, "-m", "openwork", "report", str(seen_recording), "--html", str(path)]
    subprocess.run(asked, check=True, timeout=120)
    return path


@pytest.mark.parametrize(("theme", "width"), [("light", 1200), ("dark", 400)])
def test_it_can_be_read_and_loads_nothing(chromium, written, theme, width):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page, wrong, asked = context.new_page(), [], []
    page.on("console", lambda said: wrong.append(said.text))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(written.as_uri())
    found = page.evaluate(LEGIBLE)
    assert found == {"nameless": [], "faint": [], "twice": []}
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert page.locator("svg[role=img]").count() >= 2 and page.locator("h1").inner_text() == "What happened"
    context.close()
    assert wrong == [] and asked == [written.as_uri()]
