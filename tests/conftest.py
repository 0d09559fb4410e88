"""What all tests share: the --long flag, and a count of the positions whose logits were compared bit by bit.

Where the native core could not be built, the tests run on the reference, and the warning that says so is expected.
"""

import os

import pytest
from hypothesis import settings

from openwork.ops.cpu import available

# A slow moment of a busy machine is not a failure; where runs must repeat, the draws do.
settings.register_profile("openwork", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("openwork")

POSITIONS = pytest.StashKey[dict]()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="draw many more schedules and shapes in the property tests")
    parser.addoption("--screenshots", action="store_true", help="write the pictures of docs/microscope.md anew")
    parser.addoption("--write-golden", action="store_true", help="write the golden logs of tests/laws anew")


def pytest_configure(config):
    config.stash[POSITIONS] = {}
    if not available():
        config.addinivalue_line("filterwarnings", "ignore:.*NumPy reference is used:RuntimeWarning")


@pytest.fixture(autouse=True, scope="session")
def own_weight_cache(tmp_path_factory):
    """No test reads or writes the packed weights of whoever runs it; child processes inherit this."""
    before = os.environ.get("OPENWORK_CACHE")
    os.environ["OPENWORK_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("OPENWORK_CACHE")
    if before is not None:
        os.environ["OPENWORK_CACHE"] = before


@pytest.fixture(scope="session")
def is_long(request):
    return request.config.getoption("--long")


@pytest.fixture(scope="session")
def positions_compared(request):
    """Maps what was compared to how many positions of it."""
    return request.config.stash[POSITIONS]


def pytest_terminal_summary(terminalreporter, config):
    counts = config.stash[POSITIONS]
    for name, count in sorted(counts.items()):
        terminalreporter.write_line(f"equal logit bytes: {count} positions compared ({name})")
    if counts:
        terminalreporter.write_line(f"equal logit bytes: {sum(counts.values())} positions compared in all")
