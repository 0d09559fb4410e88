"""The page of the microscope: one HTML document with its style, its scripts and, in a file, its numbers inside.

    page(...)       the document as text, and the policy that goes with it as a header

It guarantees that nothing is loaded from anywhere, that a browser runs these scripts only (their hashes stand in the
Content-Security-Policy), and that no text in the numbers can end the element they stand in. It knows no recording.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

FIRST = ("paper", "documents", "progress", "cursor")
VIEWS = ("decoding", "composition", "cache", "tokens", "lens", "tree", "phases", "timeline", "diff")
SCRIPTS = (*FIRST, "window", "pool", "lanes", "guesses", *VIEWS, "transport", "page")


def page(data: dict[str, Any], is_live: bool) -> str:
    """The whole document. ``data`` is what it knows from the start (documents.js); a live one may ask its server."""
    style, scripts, frame = _parts()
    html = frame.replace("@POLICY@", policy(is_live)).replace("@STYLE@", style)
    html = html.replace("@SCRIPTS@", "\n".join(f"<script>{script}</script>" for script in scripts))
    return html.replace("@DOCUMENTS@", as_json(data))  # last: nothing in it is replaced


def policy(is_live: bool) -> str:
    """The Content-Security-Policy: these scripts and this style, and nothing else from anywhere."""
    style, scripts, _ = _parts()
    runs = " ".join(map(_hash, scripts))
    asks = "'self'" if is_live else "'none'"
    return (
        f"default-src 'none'; script-src {runs}; style-src {_hash(style)}; connect-src {asks}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def as_json(data: Any) -> str:
    """JSON that may stand inside a script element: no text in it can end that, or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _parts() -> tuple[str, tuple[str, ...], str]:
    here = files(__name__)

    def read(name: str) -> str:
        return (here / name).read_text(encoding="utf-8")

    return read("page.css"), tuple(read(f"{name}.js") for name in SCRIPTS), read("index.html")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
