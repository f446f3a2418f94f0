"""plugins, quantize: a search for each block's grid, its scale fitted by least squares.

Sources: llama.cpp's make_qkx3_quants, with its zero points whole inside of the search; "importance matrix" weights.

Ranges from the whole block down to half of it are tried, then zero points next to the best. For codes and a zero
point, with steps c = code - zero_point, the scale that minimises sum(importance * (w - scale * c)^2) is

    scale = sum(importance * w * c) / sum(importance * c^2)

which lowers the error of an all-zero block by sum(importance * w * c)^2 / sum(importance * c^2): the gain that
candidates are compared by, before any weight is rounded again. Round to nearest is the first candidate, and the
result never has more error than it.
"""

from functools import partial

import numpy as np

from edgewise.quantized import Format
from edgewise_plugins.quantize.blocks import Coded, Kernel, in_blocks
from edgewise_plugins.quantize.nearest import SMALLEST, nearest, parameters, ranges, round_to

SHRINKS = np.linspace(1, 0.5, 6, dtype=np.float32)
NEIGHBOURS = (-1, 0, 1)
ROUNDS = 2
FLOOR = np.float32(0.01)  # of the mean importance, added to each: what a text leaves idle is not idle everywhere


def grid_for(importance: np.ndarray | None, form: Format) -> Kernel:
    """The search for a matrix whose input columns matter by `importance`, `[columns]` (mean squares); None: alike."""
    if importance is None or not importance.any():
        return grid
    damped = importance + FLOOR * importance.mean()
    scaled = damped / damped.max()  # a float32 square of anything stays in range
    return partial(grid, importance=in_blocks(scaled[None], form.block_size))


def grid(weights: np.ndarray, form: Format, *, importance: np.ndarray | None = None) -> Coded:
    """Weights `[rows, blocks, block_size]` on the best grid found; importance `[1, blocks, block_size]`."""
    low, high = ranges(weights)
    start = nearest(weights, form)
    best = _Best(weights, form, importance, start)
    for shrink in SHRINKS[: 1 if form.bits == 8 else None]:
        scales, zero_points = parameters(low * shrink, high * shrink, form)
        best.offer(scales, zero_points)
        if form.symmetric:
            best.offer(-scales, zero_points)
    for _ in range(ROUNDS):
        scales, zero_points = best.fitted, best.zero_points
        for step in (0,) if form.symmetric else NEIGHBOURS:
            best.offer(scales, np.clip(zero_points + np.float32(step), 0, form.top))
    found = best.coded()
    worse = error(found, weights, importance) > error(start, weights, importance)  # by rounding, where both are exact
    return _choose(worse, start, found)


def error(coded: Coded, weights: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """Weighted squared error of each block."""
    difference = coded.weights()
    difference -= weights
    weighted = difference if importance is None else difference * importance
    return np.asarray(np.einsum("rbk,rbk->rb", weighted, difference))


def fit(
    codes: np.ndarray, zero_points: np.ndarray, weights: np.ndarray, importance: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """sum(importance * w * c) and sum(importance * c^2) of each block, for the steps c that codes stand for."""
    steps = codes.astype(np.float32)
    steps -= zero_points[..., None]
    weighted = steps if importance is None else steps * importance
    return np.einsum("rbk,rbk->rb", weighted, weights), np.einsum("rbk,rbk->rb", weighted, steps)


class _Best:
    """The best grid of each block so far: the scale to round with, and the one that fits the codes best."""

    def __init__(self, weights: np.ndarray, form: Format, importance: np.ndarray | None, start: Coded) -> None:
        self.weights, self.form, self.importance = weights, form, importance
        self.scales = self.fitted = start.scales
        self.zero_points = start.zero_points
        self.gain = np.full(start.scales.shape, -1, np.float32)

    def offer(self, scales: np.ndarray, zero_points: np.ndarray) -> None:
        scales = np.where(np.abs(scales) < SMALLEST, SMALLEST, scales)
        codes = round_to(self.weights, scales, zero_points, self.form.top)
        product, square = fit(codes, zero_points, self.weights, self.importance)
        some = square > 0
        fitted = np.where(some, product / np.where(some, square, 1), scales)
        gain = np.where(some, fitted * product, 0)
        better = gain > self.gain
        self.gain = np.where(better, gain, self.gain)
        self.scales = np.where(better, scales, self.scales)
        self.fitted = np.where(better, fitted, self.fitted)
        self.zero_points = np.where(better, zero_points, self.zero_points)

    def coded(self) -> Coded:
        codes = round_to(self.weights, self.scales, self.zero_points, self.form.top)
        return Coded(codes, self.fitted, self.zero_points)


def _choose(condition: np.ndarray, yes: Coded, no: Coded) -> Coded:
    return Coded(
        np.where(condition[..., None], yes.codes, no.codes),
        np.where(condition, yes.scales, no.scales),
        np.where(condition, yes.zero_points, no.zero_points),
    )
