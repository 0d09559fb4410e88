"""Rotary position embedding: from a config to frequencies.

One function a scaling; each follows the published formula in float32, operation by operation, because checkpoints were
trained that way and at position 100,000 the last bit of a frequency is a visible angle. Powers and logarithms are taken
in decimal arithmetic, so that the operating system's mathematical library has no say in a bit. The result depends
on the config and on the window that the engine is opened with, never on the length of one text: otherwise a token's
keys would change when later tokens arrive.

Both spellings of a config are read: `rope_theta` with `rope_scaling`, and the newer `rope_parameters`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from math import ceil, floor, pi, sqrt

import numpy as np

from openwork.core.errors import UnsupportedModel
from openwork.core.spec import RopeSpec
from openwork.models.config import Config
from openwork.models.trig import MAX_ANGLE

_EXACT = Context(prec=34)
_MAX_THETA = 1e15
_MAX_FACTOR = 1e6
_ONE = np.float32(1)


@dataclass(frozen=True, slots=True)
class _Window:
    """Lengths in positions: what the model was first trained on, what it defines, what the engine is opened with."""

    original: int
    maximum: int
    opened: int


def rope(
    config: Config,
    head_dim: int,
    max_positions: int,
    context: int | None,
    *,
    theta_name: str = "rope_theta",
    partial_name: str = "partial_rotary_factor",
    partial: float = 1.0,
    original: int | None = None,
    renamed: Mapping[str, str] | None = None,
) -> tuple[RopeSpec, int]:
    """The rotary embedding that a config describes, and the longest sequence it reaches.

    ``context`` is the window that the engine is opened with (None: the longest). ``partial`` is the part of a head that
    turns when the config does not say, ``original`` the training length when it does not say, ``renamed`` old names of
    scalings. Raises ModelError for bad numbers, UnsupportedModel for a scaling that is not here.
    """
    scaling = config.section("rope_scaling") or config.section("rope_parameters") or Config({}, config.where)
    if any(isinstance(value, dict) for value in scaling.data.values()):
        raise UnsupportedModel("a rotary embedding per layer type is not supported", where=config.where)
    kind = scaling.text(scaling.first("rope_type", "type"), "default")
    kind = (renamed or {}).get(kind, kind)
    if kind == "dynamic":
        raise UnsupportedModel(
            "dynamic NTK scaling changes the keys of earlier tokens when a text grows, which no key cache can follow",
            "Use a checkpoint with yarn, llama3, longrope or linear scaling.",
            where=config.where,
            field=f"{scaling.inside}rope_type",
        )
    if kind not in _SCALINGS:
        raise UnsupportedModel(
            f"rope type {kind[:40]!r} is not supported; supported are {', '.join(_SCALINGS)}", where=config.where
        )
    source = scaling if scaling.has("rope_theta") else config
    theta = source.real("rope_theta" if source is scaling else theta_name, 1, _MAX_THETA, 10000.0)
    source = scaling if scaling.has("partial_rotary_factor") else config
    partial = source.real("partial_rotary_factor" if source is scaling else partial_name, 0, 1, partial)
    dim = int(head_dim * partial)
    if dim < 2 or dim % 2:
        raise config.error(
            partial_name, f"turns {dim} entries of a head of {head_dim}; it must be an even number, not 0"
        )
    source = config if config.has("original_max_position_embeddings") else scaling
    first = source.whole("original_max_position_embeddings", 1, 2**24, original or max_positions)
    window = _Window(first, max_positions, context or max_positions)
    with np.errstate(all="ignore"):
        frequencies, scale, reach = _SCALINGS[kind](scaling, theta, dim, window)
    if not np.isfinite(frequencies).all() or float(np.abs(frequencies).max()) * reach > MAX_ANGLE:
        raise config.error(scaling.inside.rstrip("."), f"gives angles beyond {MAX_ANGLE:g} radians at position {reach}")
    return RopeSpec(dim, tuple(frequencies.tolist()), scale), reach


_Scaled = tuple[np.ndarray, float, int]  # frequencies (dim / 2,) float32, attention factor, longest sequence


def _plain(scaling: Config, theta: float, dim: int, window: _Window) -> _Scaled:
    """Su et al. 2021 (RoFormer): theta to the power -2i / dim."""
    return _ONE / _powers(theta, dim), 1.0, window.maximum


def _linear(scaling: Config, theta: float, dim: int, window: _Window) -> _Scaled:
    """Chen et al. 2023, "Extending context window ... via position interpolation": positions divided by a factor."""
    factor = scaling.real("factor", 0, _MAX_FACTOR)
    return _ONE / _powers(theta, dim) / np.float32(factor), 1.0, window.maximum


def _llama3(scaling: Config, theta: float, dim: int, window: _Window) -> _Scaled:
    """Llama 3.1: long waves slowed down by a factor, short ones kept, those in between blended."""
    factor = scaling.real("factor", 0, _MAX_FACTOR)
    low = scaling.real("low_freq_factor", 0, _MAX_FACTOR)
    high = scaling.real("high_freq_factor", 0, _MAX_FACTOR)
    if high <= low:
        raise scaling.error("high_freq_factor", f"is {high:g}; it must be above low_freq_factor, which is {low:g}")
    plain = _ONE / _powers(theta, dim)
    wave = (_ONE / plain) * np.float32(2 * pi)  # positions a turn
    slow = np.where(wave > np.float32(window.original / low), plain / np.float32(factor), plain)
    blend = ((_ONE / wave) * np.float32(window.original) - np.float32(low)) / np.float32(high - low)
    mixed = (_ONE - blend) * slow / np.float32(factor) + blend * slow
    is_short = wave < np.float32(window.original / high)
    is_long = wave > np.float32(window.original / low)
    return np.where(is_short | is_long, slow, mixed), 1.0, window.maximum


def _yarn(scaling: Config, theta: float, dim: int, window: _Window) -> _Scaled:
    """Peng et al. 2023 (YaRN): entries that turn often keep their frequency, slow ones are divided by the factor."""
    ratio = max(1.0, window.maximum / window.original)
    factor = scaling.real("factor", 0, _MAX_FACTOR, ratio)
    fast = scaling.real("beta_fast", 0, _MAX_FACTOR, 32.0)
    slow = scaling.real("beta_slow", 0, _MAX_FACTOR, 1.0)
    low, high = (_turning(turns, theta, dim, window.original) for turns in (fast, slow))
    if scaling.flag("truncate", True):
        low, high = floor(low), ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp, without dividing by zero
    ramp = (np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = _ONE - np.clip(ramp, 0, 1)
    powers = _powers(theta, dim)
    mixed = (_ONE / (np.float32(factor) * powers)) * (_ONE - kept) + (_ONE / powers) * kept
    if scaling.has("attention_factor"):
        scale = scaling.real("attention_factor", 0, _MAX_FACTOR)
    elif scaling.has("mscale") and scaling.has("mscale_all_dim"):
        scale = _mscale(factor, scaling.real("mscale", 0, 100)) / _mscale(
            factor, scaling.real("mscale_all_dim", 0, 100)
        )
    else:
        scale = _mscale(factor, 1.0)
    return mixed, scale, max(window.maximum, min(int(factor * window.original), 2**24))


def _longrope(scaling: Config, theta: float, dim: int, window: _Window) -> _Scaled:
    """Ding et al. 2024 (LongRoPE): one factor an entry, the long list when the window exceeds the training length."""
    name = "long_factor" if window.opened > window.original else "short_factor"
    lists = {each: scaling.reals(each, dim // 2, 0, _MAX_FACTOR) for each in ("short_factor", "long_factor")}
    frequencies = _ONE / (np.array(lists[name], np.float32) * _powers(theta, dim))
    factor = scaling.real("factor", 0, _MAX_FACTOR, window.maximum / window.original)
    if scaling.has("attention_factor"):
        scale = scaling.real("attention_factor", 0, _MAX_FACTOR)
    elif factor <= 1 or window.original < 2:
        scale = 1.0
    else:
        scale = sqrt(1 + _ln(factor) / _ln(window.original))
    return frequencies, scale, window.maximum


_SCALINGS: dict[str, Callable[[Config, float, int, _Window], _Scaled]] = {
    "default": _plain,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
}


def _powers(theta: float, dim: int) -> np.ndarray:
    """theta to the power 2i / dim, for every i below dim / 2, each rounded once -> (dim / 2,) float32."""
    base = Decimal(float(np.float32(theta)))
    exponents = (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)).tolist()
    return np.array([float(_EXACT.power(base, Decimal(e))) for e in exponents], np.float32)


def _turning(turns: float, theta: float, dim: int, length: int) -> float:
    """The (fractional) entry that makes this many turns in ``length`` positions: YaRN, appendix A."""
    return dim * _ln(length / (turns * 2 * pi)) / (2 * _ln(theta))


def _mscale(factor: float, weight: float) -> float:
    """YaRN's attention temperature, 0.1 ln(factor) + 1."""
    return 1.0 if factor <= 1 else 0.1 * weight * _ln(factor) + 1.0


def _ln(x: float) -> float:
    return float(_EXACT.ln(Decimal(x)))
