"""One tiny model for all tests of the library face; a browser for each file of them, and a recording to look into."""

import contextlib
import os
import re
import subprocess
from pathlib import Path

import looked_into
import pytest
from faces.paged import CHROMIUM, Page, command
from looked_into import FILTERED

from openwork import LLM
from openwork.cli.seeing import Seeing
from openwork.core.settings import ScheduleSettings
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_checkpoint(directory)
    return write_byte_tokenizer(directory)


@pytest.fixture(scope="session")
def llm(checkpoint):
    with LLM(checkpoint, kv_cache_bytes=2 << 20, schedule=ScheduleSettings(64, 16)) as it:
        yield it


@pytest.fixture(scope="session")
def seen_recording(tmp_path_factory):
    return looked_into.record(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="session")
def file_of(seen_recording, tmp_path_factory):
    """The page of a request in a file: whole, or with so many bytes, or without a model."""
    made = {}
    with contextlib.ExitStack() as stack:
        seeing = {each: stack.enter_context(Seeing(seen_recording, has_model=each)) for each in (True, False)}

        def at(id, max_bytes=8 << 20, has_model=True):
            if (id, max_bytes, has_model) not in made:
                path = made[(id, max_bytes, has_model)] = tmp_path_factory.mktemp("pages") / "page.html"
                path.write_text(seeing[has_model].file(id, max_bytes), encoding="utf-8")
            return made[(id, max_bytes, has_model)]

        yield at


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as it:
        browser = it.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


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
def serve_page():
    """The address of a page about a request that a process of its own serves."""
    with contextlib.ExitStack() as stack:

        def serve(id, recording):
            environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
            asked = command(id, "--record", recording)
            process = stack.enter_context(subprocess.Popen(asked, stdout=subprocess.PIPE, text=True, env=environment))
            stack.callback(process.terminate)
            return next(found[0] for line in process.stdout if (found := re.search(r"http://\S+", line)))

        yield serve


@pytest.fixture
def live(seen_recording, serve_page):
    return serve_page(FILTERED, seen_recording)
