"""From a config to frequencies: both spellings, every scaling, and what is refused."""

import math

import numpy as np
import pytest

from openwork.core.errors import ModelError, UnsupportedModel
from openwork.models.config import Config
from openwork.models.rope import rope

LONG = {"rope_type": "longrope", "short_factor": [1.0, 2.0], "long_factor": [3.0, 4.0]}
LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}


def frequencies(context=None, head_dim=8, positions=1000, **config):
    return rope(Config(config), head_dim, positions, context)[0]


def test_plain():
    spec = frequencies(rope_theta=100.0)
    assert spec.dim == 8
    np.testing.assert_allclose(spec.frequencies, [1, 100**-0.25, 0.1, 100**-0.75], rtol=2e-7)
    assert all(float(np.float32(f)) == f for f in spec.frequencies)


def test_old_and_new_spellings_agree():
    scaling = {"type": "linear", "factor": 2.0}
    old = frequencies(rope_theta=500.0, partial_rotary_factor=0.5, rope_scaling=scaling)
    new = frequencies(
        rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    )
    assert old == new
    assert old.dim == 4
    assert frequencies(rope_scaling=None) == frequencies() == frequencies(rope_parameters={"rope_type": "default"})


def test_linear_divides():
    scaled, plain = frequencies(rope_scaling={"rope_type": "linear", "factor": 4}), frequencies()
    assert [4 * f for f in scaled.frequencies] == list(plain.frequencies)


def test_llama3_keeps_short_waves_and_slows_long_ones():
    plain = frequencies(head_dim=64, rope_theta=1e6).frequencies
    scaled = frequencies(head_dim=64, rope_theta=1e6, rope_scaling=LLAMA3).frequencies
    ratios = [a / b for a, b in zip(plain, scaled, strict=True)]
    assert ratios[0] == 1
    assert ratios[-1] == pytest.approx(8)
    assert ratios == sorted(ratios)
    assert 1.5 < ratios[np.searchsorted(ratios, 1.5)] < 8


def test_yarn_reaches_further_and_warms_attention():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1000}
    spec, reach = rope(Config({"rope_scaling": yarn}), 64, 1000, None)
    assert reach == 4000
    assert spec.scale == pytest.approx(0.1 * math.log(4) + 1)
    assert rope(Config({"rope_scaling": yarn}), 64, 8000, None)[1] == 8000
    assert frequencies(rope_scaling=yarn | {"attention_factor": 0.5}).scale == 0.5


def test_longrope_chooses_by_the_window_not_by_the_text():
    config = {"rope_scaling": LONG, "original_max_position_embeddings": 100}
    short, long = (frequencies(context, 4, **config) for context in (100, 101))
    assert [s / g for s, g in zip(short.frequencies, long.frequencies, strict=True)] == pytest.approx([3, 2])
    assert frequencies(None, 4, **config) == long
    assert short.scale == long.scale == pytest.approx(math.sqrt(1 + math.log(10) / math.log(100)))
    assert frequencies(50, 4, **config) == short


def test_old_names_of_scalings():
    config = Config({"rope_scaling": LONG | {"rope_type": None, "type": "su"}, "original_max_position_embeddings": 10})
    renamed = rope(config, 4, 100, None, renamed={"su": "longrope"})
    assert renamed == rope(Config(config.data | {"rope_scaling": LONG}), 4, 100, None)
    with pytest.raises(UnsupportedModel, match="'su' is not supported"):
        rope(config, 4, 100, None)


def test_the_training_length_in_its_three_places():
    outer = frequencies(100, rope_scaling=LLAMA3, original_max_position_embeddings=64)
    inner = frequencies(100, rope_scaling=LLAMA3 | {"original_max_position_embeddings": 64})
    both = frequencies(
        100, rope_scaling=LLAMA3 | {"original_max_position_embeddings": 9}, original_max_position_embeddings=64
    )
    assert outer == inner == both
    assert frequencies(rope_scaling=LLAMA3, positions=64) == inner


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, "changes the keys of earlier tokens"),
        ({"type": "dynamic", "factor": 2.0}, "changes the keys of earlier tokens"),
        ({"rope_type": "mrope"}, "supported are default, linear"),
        ({"full_attention": {"rope_type": "default"}}, "per layer type"),
    ],
)
def test_what_is_not_supported(scaling, message):
    with pytest.raises(UnsupportedModel, match=message):
        frequencies(rope_scaling=scaling)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_theta": 1.0}, "rope_theta"),
        ({"rope_theta": "10000"}, "rope_theta"),
        ({"rope_theta": 1e30}, "rope_theta"),
        ({"partial_rotary_factor": 0.0}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor"),
        ({"partial_rotary_factor": 0.4}, "partial_rotary_factor"),
        ({"rope_scaling": []}, "rope_scaling"),
        ({"rope_scaling": {"rope_type": 3}}, "rope_scaling.rope_type"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": -1}}, "rope_scaling.factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 1e-30}}, "rope_scaling"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1}}, "rope_scaling.high_freq_factor"),
        ({"rope_scaling": LLAMA3, "original_max_position_embeddings": 0}, "original_max_position_embeddings"),
        ({"rope_scaling": LONG | {"long_factor": [1.0]}}, "rope_scaling.long_factor"),
        ({"rope_scaling": LONG | {"short_factor": [1.0, 0.0]}}, "rope_scaling.short_factor[1]"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2, "beta_fast": 0}}, "rope_scaling.beta_fast"),
    ],
)
def test_bad_numbers(config, field):
    with pytest.raises(ModelError) as error:
        frequencies(head_dim=4 if "longrope" in str(config) else 8, **config)
    assert error.value.field == field
