"""Every example runs, and prints something."""

import subprocess
import sys
from pathlib import Path

import pytest

from openwork.ops.cpu import available

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path):
    warnings = ["-W", "error"] if available() else []
    done = subprocess.run(
        [sys.executable, *warnings, str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_there_are_examples():
    assert len(EXAMPLES) >= 5
