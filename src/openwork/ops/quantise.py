"""Quantise: float32 to small integers and scales, by the rules that every backend follows to the bit.

Thirty-two neighbouring inputs are a group. Weights of a group share a float16 scale (int8, int4), or all of an output
share a float32 one (int8-channel); so do the inputs of a row, group by group, in float32. All arithmetic is float32 in
the order written here, and rounding is to nearest, ties to even: native packing writes the same bytes.

    int8          scale = max / 127, at least 2^-24, or the next float16 where the largest code would be 128
    int4          of the scales that put the largest weight at one of PEAKS the one with the least squared error
    int8-channel  scale = max / 127
    rows          the same, for each group

A group that holds NaN or infinity, or more than its scale can, has the scale NaN: what is computed from it shows it.
What this module does not know: how codes are laid out (packed.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

GROUP = 32  # inputs that share a scale
NEAR_ZERO = np.float32(1e-30)  # nothing larger, and codes and scale are zero: 127 / max has to be finite
SMALLEST = np.float32(2.0**-25)  # the same for float16 scales: all codes would be zero
PEAKS = (-8.0, 8.0, -7.0, 7.0, -7.5, 7.5, -8.5, 8.5, -9.0, 9.0, -9.5, 9.5, -10.0, 10.0, -11.0, 11.0)


@dataclass(frozen=True, slots=True, eq=False)
class Quantised:
    """codes int8 (rows, groups, 32); scales float32 (rows, groups), or (rows, 1) where a row has one scale."""

    codes: np.ndarray
    scales: np.ndarray
    is_by_channel: bool = False

    def values(self) -> np.ndarray:
        """Codes times scales, float32 (rows, inputs)."""
        rows, groups, _ = self.codes.shape
        values = self.codes.astype(np.float32) * self.scales[..., None]
        return np.asarray(values.reshape(rows, groups * GROUP))


def _top(x: np.ndarray) -> np.ndarray:
    """The largest magnitude over the last axis; infinity where anything is not finite."""
    size = np.abs(x)
    return np.asarray(np.where(size < np.inf, size, np.float32(np.inf)).max(axis=-1, initial=np.float32(0)))


def _finite(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(np.abs(x) < np.inf, x, np.float32(0)))


def _inverse(scales: np.ndarray) -> np.ndarray:
    """1 / scale, or zero where the scale is zero or not finite."""
    size = np.abs(scales)
    return np.where((size > 0) & (size < np.inf), np.float32(1) / scales, np.float32(0)).astype(np.float32)


def _codes(x: np.ndarray, by: np.ndarray, least: int, most: int) -> np.ndarray:
    return np.asarray(np.clip(np.rint(_finite(x) * by[..., None]), least, most).astype(np.int8))


def _by_largest(x: np.ndarray, top: np.ndarray, is_by_channel: bool) -> Quantised:
    """Scale = top / 127 in float32; top (rows, 1) or (rows, groups)."""
    with np.errstate(all="ignore"):
        some = np.where(top < NEAR_ZERO, np.float32(0), top)
        scales = np.where(some < np.inf, some / np.float32(127), np.float32(np.nan)).astype(np.float32)
        by = np.where((some > 0) & (some < np.inf), np.float32(127) / some, np.float32(0)).astype(np.float32)
        return Quantised(_codes(x, by, -127, 127), scales, is_by_channel)


def rows_by_group(x: np.ndarray) -> Quantised:
    """Rows (rows, groups, 32) that are to be multiplied with quantised weights: a float32 scale for each group."""
    return _by_largest(x, _top(x), False)


def by_channel(x: np.ndarray) -> Quantised:
    """Weights (rows, groups, 32) with one float32 scale an output."""
    return _by_largest(x, _top(x).max(axis=-1, keepdims=True), True)


def to_int8(x: np.ndarray) -> Quantised:
    """Weights (rows, groups, 32) -> codes -127 .. 127, float16 scales."""
    with np.errstate(all="ignore"):
        top = _top(x)
        bits = np.maximum((top / np.float32(127)).astype(np.float16).view(np.uint16), 1)
        largest = np.rint(top * _inverse(bits.view(np.float16).astype(np.float32)))
        bits = np.where(largest > 127, bits + 1, bits)
        bits = np.where(top <= SMALLEST, 0, np.where(bits < 0x7C00, bits, 0x7E00)).astype(np.uint16)
        scales = bits.view(np.float16).astype(np.float32)
        return Quantised(_codes(x, _inverse(scales), -127, 127), scales)


def to_int4(x: np.ndarray) -> Quantised:
    """Weights (rows, groups, 32) -> codes -8 .. 7, float16 scales of either sign."""
    with np.errstate(all="ignore"):
        first = np.argmax(np.abs(x), axis=-1, keepdims=True)
        peak = np.take_along_axis(x, first, axis=-1)[..., 0]
        least, best = np.full(peak.shape, np.inf, np.float32), np.zeros(peak.shape, np.float32)
        for at in PEAKS:
            step = (peak / np.float32(at)).astype(np.float16).astype(np.float32)
            by, error = _inverse(step), np.zeros(peak.shape, np.float32)
            for i in range(GROUP):  # one after the other: the order of a sum is part of its value
                off = x[..., i] - np.clip(np.rint(x[..., i] * by), -8, 7) * step
                error = error + off * off
            is_better = error < least
            best, least = np.where(is_better, step, best), np.where(is_better, error, least)
        scales = np.where(least < np.inf, best + np.float32(0), np.float32(np.nan)).astype(np.float32)  # and no -0
        return Quantised(_codes(x, _inverse(scales), -8, 7), scales)


@dataclass(frozen=True, slots=True, eq=False)
class Chains:
    """A quantised matrix of n outputs, opened for products: codes float32 (groups, n, 32), scales (groups or 1, n)."""

    codes: np.ndarray
    scales: np.ndarray
    is_by_channel: bool

    @classmethod
    def of(cls, q: Quantised) -> Chains:
        codes = np.ascontiguousarray(q.codes.swapaxes(0, 1), np.float32)
        return cls(codes, np.ascontiguousarray(q.scales.T), q.is_by_channel)

    def times(self, x: np.ndarray) -> np.ndarray:
        """One row x (k,) -> (n,): integer sums inside a group, one chain over the groups in ascending order."""
        padded = np.zeros((1, len(self.codes), GROUP), np.float32)
        padded.reshape(-1)[: len(x)] = x
        row = rows_by_group(padded)
        sums = (self.codes @ row.codes[0].astype(np.float32)[..., None])[..., 0]  # below 2^24: exact integers
        out = np.zeros(self.codes.shape[1], np.float32)
        for g, scale in enumerate(row.scales[0]):
            out = out + sums[g] * (scale if self.is_by_channel else scale * self.scales[g])
        return out * self.scales[0] if self.is_by_channel else out
