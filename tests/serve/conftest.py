"""One application over the embedded model, for all tests of the routes."""

import pytest
from serve.api import Api, stories_engine

from openwork.testing.byte_tokenizer import write_byte_tokenizer


@pytest.fixture(scope="session")
def stories():
    with Api(stories_engine()) as api:
        yield api


@pytest.fixture(scope="session")
def byte_model(tmp_path_factory):
    """The directory of a tokeniser whose tokens are bytes."""
    return write_byte_tokenizer(tmp_path_factory.mktemp("bytes"))
