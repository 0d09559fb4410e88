"""Quality: nothing lies between a model and itself, and windows hold every token of a text once."""

import numpy as np
import pytest

from openwork.load.assemble import load
from openwork.ops.reference import Reference
from openwork.run import quality
from openwork.run.quality import compare, windows
from openwork.testing.checkpoint import write_checkpoint

IDS = np.random.default_rng(0).integers(3, 259, 90).tolist()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exact(checkpoint):
    return load(checkpoint, Reference(), "float32").model


@pytest.fixture(scope="module")
def narrow(checkpoint):
    return load(checkpoint, Reference(), "bfloat16").model


def test_a_model_agrees_with_itself(exact):
    found = compare(exact, exact, IDS, "float32")
    assert found.tokens == len(IDS) - 1
    assert found.kl_mean == found.kl_max == 0 and found.same_top == 1
    assert found.perplexity == found.perplexity_reference > 1


def test_fewer_bits_are_a_little_off(exact, narrow):
    found = compare(exact, narrow, IDS, "bfloat16", bos=1)
    assert 0 < found.kl_mean < found.kl_p99 <= found.kl_max < 0.05
    assert found.perplexity == pytest.approx(found.perplexity_reference, rel=0.05)
    assert found.perplexity != found.perplexity_reference
    assert 0.8 < found.same_top <= 1


def test_the_figures_are_those_of_the_definition(exact, narrow):
    """Against a plain computation of all positions at once."""
    from one_sequence import OneSequence

    ids = IDS[:30]
    p, q = (log_softmax(OneSequence(model, dtype="float32").feed(ids[:-1])) for model in (exact, narrow))
    kl = (np.exp(p) * (p - q)).sum(axis=1)
    found = compare(exact, narrow, ids, "float32")
    assert found.kl_mean == pytest.approx(kl.mean()) and found.kl_max == pytest.approx(kl.max())
    assert found.perplexity == pytest.approx(np.exp(-q[np.arange(29), ids[1:]].mean()))


def log_softmax(logits):
    values = logits.astype(np.float64)
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def test_rows_at_a_time_change_nothing(exact, narrow, monkeypatch):
    whole = compare(exact, narrow, IDS, "bfloat16")
    monkeypatch.setattr(quality, "_ROWS_BYTES", 1)
    assert compare(exact, narrow, IDS, "bfloat16") == whole


def test_progress_reaches_the_end(exact):
    calls = []
    compare(exact, exact, IDS, "float32", bos=1, window=20, progress=lambda *call: calls.append(call))
    assert [done for done, _ in calls] == sorted(done for done, _ in calls) and calls[0][0] < len(IDS)
    assert {total for _, total in calls} == {len(IDS)} and calls[-1][0] == len(IDS)


@pytest.mark.parametrize("bos", [None, 1])
@pytest.mark.parametrize("window", [2, 7, 90, 1000])
def test_windows_hold_every_token_once(bos, window):
    parts = [*windows(IDS, bos, window)]
    assert all(2 <= len(part) <= window for part in parts)
    opening = [] if bos is None else [bos]
    assert all(part[: len(opening)] == opening for part in parts)
    left = IDS[:-1] if bos is None and len(IDS) % window == 1 else IDS  # a last one alone has nothing before it
    assert [token for part in parts for token in part[len(opening) :]] == left


def test_a_token_that_opens_a_text_opens_a_window():
    assert [*windows([1, 5, 6, 1, 1, 7, 8, 9], 1, 3)] == [[1, 5, 6], [1, 7, 8], [1, 9]]
    assert [*windows([5, 1, 6], None, 9)] == [[5, 1, 6]]
