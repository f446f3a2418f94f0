"""tests: half-quadratic quantization: against a slow version, and round to nearest."""

import numpy as np
import pytest

from edgewise.quantized import Format
from edgewise_plugins.quantize.blocks import in_blocks
from edgewise_plugins.quantize.hqq import hqq
from edgewise_plugins.quantize.nearest import nearest

FORMATS = [Format(bits, size, symmetric) for bits in (2, 4, 8) for size in (32, 128) for symmetric in (False, True)]


def weights(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_t(4, (rows, columns)) * 0.02).astype(np.float32)


def objective(floats: np.ndarray, block: np.ndarray) -> float:
    return float((np.abs(floats - block) ** 0.7).sum())


def slowly(block: np.ndarray, form: Format) -> float:
    """The least objective of one block, in float64, as the docstring reads."""
    start = nearest(block[None, None].astype(np.float32), form)
    codes, scale, zero = start.codes[0, 0].astype(float), float(start.scales[0, 0]), float(start.zero_points[0, 0])
    least, beta = objective((codes - zero) * scale, block), 10.0
    for _ in range(20):
        r = block / scale - (codes - zero)
        e = np.sign(r) * np.maximum(np.abs(r) - np.maximum(np.abs(r), 1e-6) ** -0.3 / beta, 0)
        if not form.symmetric:
            zero = min(max(np.floor(np.mean(codes - (block / scale - e)) + 0.5), 0), form.top)
        steps = codes - zero
        if (steps**2).sum() > 0:
            scale = ((block - scale * e) * steps).sum() / (steps**2).sum()
        codes = np.clip(np.floor(block / scale + zero + 0.5), 0, form.top)
        least, beta = min(least, objective((codes - zero) * scale, block)), beta * 1.01
    return least


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_the_objective_is_that_of_the_slow_version(form: Format) -> None:
    blocks = in_blocks(weights(12, 256), form.block_size)
    floats = hqq(blocks, form).weights()
    ours = [objective(a, b) for a, b in zip(floats.reshape(-1, form.block_size), _rows(blocks), strict=True)]
    slow = [slowly(block.astype(np.float64), form) for block in _rows(blocks)]
    # a weight halfway between two codes may go either way, and its block with it
    assert sum(ours) == pytest.approx(sum(slow), rel=0.005)


@pytest.mark.parametrize("columns", [896, 300, 33])
@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_no_block_has_a_larger_objective_than_round_to_nearest(form: Format, columns: int) -> None:
    blocks = in_blocks(weights(5, columns), form.block_size)
    ours, simple = hqq(blocks, form), nearest(blocks, form)
    total = [(np.abs(coded.weights() - blocks) ** 0.7).sum(axis=-1) for coded in (ours, simple)]
    assert (total[0] <= total[1]).all()
    assert total[0].sum() < total[1].sum()


def test_zero_points_are_whole_and_in_their_range() -> None:
    form = Format(4, 32, False)
    zero_points = hqq(in_blocks(weights(20, 256) + np.float32(0.03), 32), form).zero_points
    assert (zero_points == np.floor(zero_points)).all()
    assert 0 <= zero_points.min() <= zero_points.max() <= form.top


def test_a_few_outliers_cost_the_others_less_than_with_round_to_nearest() -> None:
    matrix = weights(50, 128, seed=3) * np.float32(0.1)
    matrix[:, 7] = 0.02
    blocks, form = in_blocks(matrix, 128), Format(4, 128, False)
    others = np.arange(128) != 7
    ours, simple = (
        np.abs(coded.weights() - blocks)[..., others].mean() for coded in (hqq(blocks, form), nearest(blocks, form))
    )
    assert ours < simple


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_zeros_stay_zeros(form: Format) -> None:
    assert (hqq(in_blocks(np.zeros((2, 300), np.float32), form.block_size), form).weights() == 0).all()


def _rows(blocks: np.ndarray) -> np.ndarray:
    return blocks.reshape(-1, blocks.shape[-1])
