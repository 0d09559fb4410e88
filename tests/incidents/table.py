"""docs/incidents.md, written from the tests themselves: python tests/incidents/table.py

Every row is a test parameter, or the docstring of a test whose name begins with an id; so the published list is what is
run, and a test checks that the page is up to date.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent.parent / "docs" / "incidents.md"
MODULES = "http json sampling text tools concurrency resources configuration models crash fuzz soak"
_HEAD = """# What was tried to break it

Bad inputs and bad luck, each of which a server of the field met and fell over. Every row is run by `pytest
tests/incidents` against a real server process, and around every row these are checked: the processes live on (or, where
the row kills one, another has taken its place); a golden request gets the same tokens; a stream that runs all along
gets the tokens it always gets; nothing runs, waits or holds blocks afterwards; descriptors, threads and memory are
where they were; no answer and no log line says a word of a prompt, a path or a traceback; nothing unusual was opened.

This page is written by `python tests/incidents/table.py` from the parameters of those tests.
"""


def page() -> str:
    parts = [_HEAD]
    for name in MODULES.split():
        module = importlib.import_module(f"incidents.test_{name}")
        rows = [row for row in (*_table_rows(module), *_function_rows(module)) if row]
        title = (module.__doc__ or "").strip().splitlines()[0]
        parts.append(f"\n## {title}\n\n| Id | Input | Expected |\n|---|---|---|\n" + "".join(sorted(rows, key=_order)))
    return "".join(parts)


def _table_rows(module) -> list[str]:
    table = getattr(module, "table", None)
    cases = [] if table is None else table.cases
    return [f"| {case.id} | {_cell(case.input)} | {_cell(case.expected)} |\n" for case in cases]


def _function_rows(module) -> list[str]:
    """Of tests that are functions: "K07: what is tried: what is expected" in the first line of the docstring."""
    rows = []
    for name, test in inspect.getmembers(module, inspect.isfunction):
        found = re.match(r"([A-Z]\d\d(?:(?:, | to )[A-Z]\d\d)*): ((?:[^:]|:\S)+)(?:: (.*))?", test.__doc__ or "")
        if name.startswith("test_") and found:
            ids, tried, expected = found.groups()
            rows.append(f"| {ids} | {_cell(tried)} | {_cell((expected or '').splitlines()[0] if expected else '')} |\n")
    return rows


def _order(row: str) -> tuple[str, str]:
    return row[2:5], ""


def _cell(text: str) -> str:
    shown = "".join(char if char.isprintable() and char not in "<>" else _escaped(char) for char in text)
    return shown.replace("|", "\\|").strip()


def _escaped(char: str) -> str:
    return {"<": "&lt;", ">": "&gt;"}.get(char) or f"\\u{ord(char):04x}"


if __name__ == "__main__":
    sys.path.insert(0, str(TESTS.parent))
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE}: {PAGE.read_text(encoding='utf-8').count(chr(10))} lines")
