"""A page in Debian's chromium, and everything that went wrong on it. What needs it is skipped where there is none."""

import shutil
import sys

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VIEWS = ("decoding", "composition", "cache", "tokens", "lens", "search", "phases", "timeline", "diff")
WAIT_MS = 60_000  # a bound and no measure: this machine may be busy


def needs_browser():
    """Skips the file that calls it where no browser can be driven."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium", allow_module_level=True)


def command(*arguments):
    return [sys.executable, "-m", "openwork", "see", *map(str, arguments)]


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
