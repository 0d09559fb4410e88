"""What work must cost at least, and the share it reaches of the ceiling that binds."""

import pytest

from openwork.bench import cost
from openwork.bench.cost import Least, Weights
from openwork.bench.limits import DOTS, Ceiling
from openwork.bench.shapes import SHAPES
from openwork.bench.share import beside, share_of
from openwork.load.invent import survey


def weights(windows=None, dtype="bfloat16", kv_dtype="bfloat16"):
    spec, _ = survey(SHAPES["tiny"], "bfloat16")
    if windows is not None:
        object.__setattr__(spec, "windows", windows)
    return Weights(spec, dtype, kv_dtype, read_bytes=1000, kv_bytes=10.0)


def test_a_decode_step_reads_matrices_once_and_the_keys_of_each_sequence():
    found = cost.decode(weights(), [100.0, 50.0])
    spec = weights().spec
    assert found.num_bytes == 1000 + 2 * 150 * 10
    assert found.linear == 2 * 2 * spec.weights_read_per_token
    assert found.attention == 4 * spec.q_size * 2 * 150
    assert found.tokens == 2


def test_a_window_is_read_no_further():
    assert cost.decode(weights((20, None)), [100.0]).num_bytes == 1000 + (20 + 100) * 10


@pytest.mark.parametrize("window", [1, 3, 7, 12, None])
def test_a_prompt_sees_a_triangle_of_keys(window):
    held = weights((window, None))
    seen = sum(min(window or at, at) for at in range(1, 8)) + sum(range(1, 8))
    assert cost.prefill(held, 7).attention == 4 * held.spec.q_size * seen


def test_each_kind_of_operation_has_its_own_peak():
    ceiling = Ceiling(100.0, {"int8": 1000.0, "bfloat16": 10.0})
    held = weights(dtype="int4", kv_dtype="bfloat16")
    found = cost.least(cost.Cost(1, 200.0, 3000.0, 50.0), held, ceiling)
    assert found == Least(memory=2.0, linear=3.0, arithmetic=8.0)
    assert set(DOTS.values()) == {"float32", "bfloat16", "int8"}


def test_the_lower_ceiling_binds():
    share = share_of([(4.0, 2, Least(memory=1.0, linear=2.0, arithmetic=3.0))])
    assert (share.tok_s, share.bound, share.share, share.linear_share) == (0.5, "arithmetic", 0.75, 0.5)
    assert share.limit_tok_s == share.arithmetic_tok_s == 2 / 3
    share = share_of([(4.0, 2, Least(memory=3.5, linear=2.0, arithmetic=3.0))])
    assert (share.bound, share.share, share.limit_tok_s) == ("memory", 3.5 / 4, 2 / 3.5)


def test_shares_are_taken_turn_by_turn():
    turns = [(2.0, 1, 1.0), (1.0, 1, 1.0), (4.0, 1, 3.0)]  # shares 0.5, 1, 0.75; the median rate's own is 0.5
    share = share_of([(seconds, tokens, Least(least, 0, 0.1)) for seconds, tokens, least in turns])
    assert (share.tok_s, share.share) == (0.5, 0.75)


def test_work_stands_between_two_ceilings():
    class Drifting:
        asked = 0

        def now(self, formats):
            assert set(formats) == {"bfloat16"}
            self.asked += 1
            return Ceiling(100.0 * self.asked, {"bfloat16": 1e9})

    limits = Drifting()
    share = beside(lambda: (2.0, cost.Cost(1, 300.0, 1.0, 0.0)), limits, weights(), turns=1)
    assert limits.asked == 2
    assert share.share == pytest.approx(300 / 150 / 2.0)
