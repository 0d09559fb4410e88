"""One tiny model for all tests of the library face: random weights, byte tokens, a small cache."""

import pytest

from openwork import LLM
from openwork.core.settings import ScheduleSettings
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_checkpoint(directory)
    return write_byte_tokenizer(directory)


@pytest.fixture(scope="session")
def llm(checkpoint):
    with LLM(checkpoint, kv_cache_bytes=2 << 20, schedule=ScheduleSettings(64, 16)) as it:
        yield it
