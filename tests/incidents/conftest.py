from __future__ import annotations

import pytest

pytest.register_assert_rewrite("incidents.case", "incidents.house", "incidents.serving")

from incidents.house import open_house  # noqa: E402
from incidents.serving import write_model  # noqa: E402


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def house(tmp_path_factory, model):
    """The server that most cases share: a case that spoils something for the next is found by that."""
    with open_house(tmp_path_factory.mktemp("house"), model, "--limit", "header_s=3", "--limit", "body_s=3") as opened:
        yield opened
