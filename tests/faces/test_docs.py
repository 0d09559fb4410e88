"""The pages hold: links lead somewhere, code runs, and options that are named exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openwork.cli.main import SUBCOMMANDS, app
from openwork.ops.cpu import available

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "training" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize(("page", "begins"), [("tour.md", "[("), ("constraints.md", '{"name"')])
def test_the_code_of_a_page_runs(page, begins):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    warnings = ["-W", "error"] if available() else []
    done = subprocess.run(
        [sys.executable, *warnings, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(begins)


def test_the_code_of_the_search_page_runs_and_says_what_is_printed_there():
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    parts = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    warnings = ["-W", "error"] if available() else []
    done = subprocess.run(
        [sys.executable, *warnings, "-c", "\n".join(parts)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("big box True 4 of 7 places")
    said = dict(re.findall(r"^'(.*?)' +(?:< )?(-\d\.\d)", text, re.MULTILINE))  # other contracts, other last digits
    assert len(said) == 6
    for option, logprob in said.items():
        assert re.search(rf"^{option} +{re.escape(logprob)}", done.stdout, re.MULTILINE), option


def test_the_readme_names_every_subcommand_and_no_other():
    named = set(re.findall(r"^openwork (\w+)", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert named == set(SUBCOMMANDS)


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help_with_an_example(name):
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0 and f"openwork {name}" in done.stdout
