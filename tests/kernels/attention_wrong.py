"""Parts of attention's forward kernel, done otherwise: what its faults, and a GPU, put in their places."""

from __future__ import annotations

import triton
import triton.language as tl

from lamina_kernels.attention.walk import Walk


@triton.jit
def stay(m, larger, to_log2):
    """Return 1: sums stay as they are where a larger score comes."""
    return m * 0.0 + 1.0


@triton.jit
def fused(s, m, to_log2):
    """Return s to_log2 - m to_log2, of which the second product alone is rounded."""
    exact = s.to(tl.float64) * tl.cast(to_log2, tl.float32).to(tl.float64)
    return (exact - (m * tl.cast(to_log2, tl.float32)).to(tl.float64)).to(tl.float32)


@triton.jit
def inside(positions, columns, keys, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr):
    """Return which keys exist, for all that are seen."""
    return (columns < keys) & (positions == positions)


@triton.jit
def whole(position, last_position, keys, left, right, LEFT: tl.constexpr, RIGHT: tl.constexpr, COLUMNS: tl.constexpr):
    """Return all tiles as such that every query sees whole."""
    high = tl.cdiv(keys, COLUMNS) * COLUMNS
    return keys * 0, keys * 0, high, high


@triton.jit
def all_whole(walk, line, blocks, BLOCK: tl.constexpr):
    """Return all whole blocks of a mask as such that every query sees whole, whatever the window."""
    low = walk.low * 0
    middle = (tl.load(line + 1) - tl.load(line)) * BLOCK
    high = (tl.load(line + 2) - tl.load(line)) * BLOCK
    return Walk(low, low, middle, middle, middle, middle, middle, high)


@triton.jit
def none_whole(walk, line, blocks, BLOCK: tl.constexpr):
    """Return all blocks of a mask as such of which pairs may be hidden, whatever the window."""
    low = walk.low * 0
    high = (tl.load(line + 2) - tl.load(line)) * BLOCK
    return Walk(low, low, low, low, low, high, high, high)


@triton.jit
def straight(ratio):
    """Return 1 less the ratio, for a logarithm that is the same at 0 and at 1."""
    return 1.0 - ratio
