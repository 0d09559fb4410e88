"""The report as a page: what the text says stands on it, no text of a recording is markup, and it is well-formed."""

from html.parser import HTMLParser

import pytest
from taped import drawn

from openwork.cli.report import LABELS, SHOWN, as_text
from openwork.cli.tables import MARKS, compared, figure
from openwork.trace.report.incident import report
from openwork.trace.report.page import Simulated, report_page

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
    return Page(report_page(document, LABELS, SHOWN, figure, Simulated(compared, " ".join(MARKS))))


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


def test_a_simulated_figure_stands_with_its_interval_and_with_a_mark_where_that_is_wide(document):
    one = {"name": "gap_p99_s", "measured": 0.108, "as_recorded": 0.109, "what_if": 0.0385, "off": 0.01, "change": -0.6}
    figures = [
        {**one, "interval": [0.0337, 0.0412], "is_good": True},
        {**one, "name": "gap_max_s", "interval": [0.01, 2.5], "is_good": False},
    ]
    bent = {**document, "what_if": [{"label": "twice the blocks", "text": "Simulated.", "figures": figures}]}
    words = [" ".join(each.split()) for each in paged(bent).words]
    first = words.index("between tokens, p99", words.index("With twice the blocks"))
    rest = words[first : first + 13]
    assert rest[:6] == ["between tokens, p99", "108 ms", "109 ms", "+1%", "38.5 ms (33.7 ms - 41.2 ms)", "-60%"]
    assert rest[6:] == ["between tokens, most", "108 ms", "109 ms", "+1%", "38.5 ms (10 ms - 2.5 s)", "-60%", "?"]
    assert " ".join(MARKS) in words and all(mark in as_text(bent) for mark in MARKS)
