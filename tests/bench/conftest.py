"""The scripts beside the package: bench/ is where they are found."""

from pathlib import Path

import pytest


@pytest.fixture
def scripts(monkeypatch):
    """The folder of the scripts, ready to import from."""
    folder = Path(__file__).parents[2] / "bench"
    monkeypatch.syspath_prepend(folder)
    return folder
