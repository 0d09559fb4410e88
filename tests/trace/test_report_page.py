"""The report as a page: what the text says stands on it, no text of a recording is markup, and it is well-formed."""

from html.parser import HTMLParser

import pytest
from taped import drawn

from openwork.cli.report import LABELS, SHOWN, as_text
from openwork.cli.tables import figure
from openwork.trace.report.incident import report
from openwork.trace.report.page import report_page

HOSTILE = '<script>alert(1)</script><img src=x>"'
VOID = {"meta", "line", "rect", "polygon", "polyline"}


class Page(HTMLParser):
    """Its words, its elements, and whether each that is opened is closed."""

    def __init__(self, html):
        super().__init__()
        self.words, self.open, self.seen, self.unnamed = [], [], [], 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        about = dict(attributes)
        self.unnamed += about.get("role") == "img" and not about.get("aria-label")
        assert not any(name.startswith("on") or name in ("src", "href") for name in about), (tag, about)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def paged(document):
    return Page(report_page(document, LABELS, SHOWN, figure))


@pytest.fixture(scope="module", params=[3, 4, 5])
def document(request):
    return report(drawn(request.param), simulates=True)


def test_what_the_text_says_stands_on_the_page(document):
    page = paged(document)
    assert page.open == [] and page.unnamed == 0 and "script" not in page.seen
    words = " ".join(" ".join(page.words).split())
    for each in (document["headline"], *(f["text"] for f in document["findings"]), *document["notes"]):
        assert " ".join(each.split()) in words
    for each in (document["prefix"]["text"], (document["memory"] or {"text": []})["text"]):
        assert all(" ".join(line.split()) in words for line in each)
    for name in SHOWN:
        assert LABELS[name] in words and figure(name, document["figures"][name]) in words
        assert LABELS[name] in as_text(document)
    assert "svg" in page.seen or not document["findings"]


def test_no_text_of_a_recording_is_markup(document):
    tenants = document["figures"]["by_tenant"]
    bent = {
        **document,
        "headline": HOSTILE,
        "figures": {**document["figures"], "by_tenant": dict.fromkeys([HOSTILE], next(iter(tenants.values())))},
        "findings": [{**each, "culprit": HOSTILE, "text": HOSTILE} for each in document["findings"]],
        "culprits": [{**each, "tenant": HOSTILE} for each in document["culprits"]],
        "notes": [HOSTILE],
    }
    page = paged(bent)
    assert not {"script", "img"} & set(page.seen) and page.open == []
    assert HOSTILE in page.words


def test_a_recording_without_memory_or_waits_is_a_page_too(document):
    bare = {**document, "memory": None, "findings": [], "culprits": [], "what_if": [], "guesses": None, "notes": []}
    page = paged(bare)
    assert page.open == [] and not any("Memory" in each for each in page.words)
