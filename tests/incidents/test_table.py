"""The page of what was tried is the tests."""

from __future__ import annotations

from incidents import table


def test_the_page_is_up_to_date():
    assert table.PAGE.read_text(encoding="utf-8") == table.page(), "run python tests/incidents/table.py"


def test_every_id_has_one_form():
    rows = [
        line.split(" | ")[0][2:] for line in table.page().splitlines() if line.startswith("| ") and "Id" not in line[:5]
    ]
    assert len(rows) > 250
    assert all(
        part[0].isupper() and part[1:].isdigit() for row in rows for part in row.replace(" to ", ", ").split(", ")
    )
