from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.cli import terminal
from openwork.cli.progress import Bars
from openwork.cli.quantity import in_bytes, in_units, parse_bytes
from openwork.core.errors import RequestError


@given(st.text())
def test_nothing_a_terminal_obeys_gets_through(screen_class, text):
    shown = terminal.printable(text, screen_class())
    assert not {char for char in shown if ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0} - {"\n", "\t"}
    assert terminal.printable(text, io.StringIO()) == text


@pytest.fixture(scope="session")
def screen_class():
    class Screen(io.StringIO):
        def isatty(self):
            return True

    return Screen


def test_colour_only_where_it_is_seen(screen, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert terminal.styled("x", terminal.DIM, screen) == "\x1b[2mx\x1b[0m"
    assert terminal.styled("x", terminal.DIM, io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert terminal.styled("x", terminal.DIM, screen) == "x"


def test_what_a_stream_cannot_encode_is_replaced():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    terminal.write("caf\u00e9 \u732b", stream)
    assert raw.getvalue() == b"caf? ?"


def test_a_closed_stream_is_no_terminal():
    stream = io.StringIO()
    stream.close()
    assert not terminal.is_terminal(stream)
    assert not terminal.is_terminal(None)


def test_a_bar_is_drawn_for_what_takes_long_and_wiped_after(screen):
    bars = Bars(screen, patience_s=0)
    bars("loading", 0, 1000)
    bars("loading", 500, 1000)
    assert "loading weights" in screen.getvalue()
    bars("prefill", 1, 4)
    bars("prefill", 4, 4)
    assert "reading the prompt" in screen.getvalue()
    drawn = screen.getvalue()
    bars("requests", 1, 1)
    assert screen.getvalue() == drawn, "what is done at once draws nothing"


def test_no_bar_for_what_is_quick_nor_where_nobody_looks(screen):
    patient = Bars(screen, patience_s=1000)
    patient("loading", 0, 1000)
    patient("loading", 999, 1000)
    assert screen.getvalue() == ""
    unseen = io.StringIO()
    with Bars(unseen, patience_s=0) as bars:
        bars("loading", 1, 1000)
        bars("loading", 2, 1000)
    assert unseen.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("1048576", 2**20), ("512MiB", 2**29), ("512 MiB", 2**29), ("2GB", 2 * 10**9), ("2g", 2 * 10**9),
        ("1.5kB", 1500), ("0.5GiB", 2**29), ("3Ti", 3 * 2**40), ("7b", 7),
    ],
)  # fmt: skip
def test_sizes_are_read(text, size):
    assert parse_bytes(text, "kv_cache_bytes") == size


@pytest.mark.parametrize(
    "text", ["", "lots", "-1", "1e9", "1 2", "5XB", "5i", "iB", "9" * 30, "\u0661", "1." + "0" * 99]
)
def test_what_is_no_size_is_refused(text):
    with pytest.raises(RequestError, match="kv_cache_bytes: must be a size"):
        parse_bytes(text, "kv_cache_bytes")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (99_949, "99.9 kB"), (99_951, "100 kB"),
     (999_600, "1 MB"), (1_230_000_000, "1.23 GB"), (5e15, "5000 TB")],
)  # fmt: skip
def test_sizes_are_written_with_three_digits(value, text):
    assert in_bytes(value) == text
    assert in_units(value) == text.removesuffix("B").rstrip()
