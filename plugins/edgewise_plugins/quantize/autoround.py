"""plugins, quantize: AutoRound (arXiv 2309.05516): rounding is learned, so that a layer's output stays what it was.

GPTQ's codes are the start. For a block with scale s and zero point z, and codes from 0 to top, what is learned are V,
by which each weight moves within its step, and a and b, which move the ends of the block's range:

    f = ((top - z) * b + z * a) / top      scale f * s, zero point round(z * a / f)
    code = round(W / (f * s) + V) + k + zero point      k: how many steps off the nearest code GPTQ begins

The error E is the mean square of what the layer says with the hidden states that the quantized layers before give it,
less what it says in the float model. Rounding counts as having the derivative 1, and each step is

    p <- p - rate * sign(dE/dp)            rate from 1 / steps down to 0

so that nothing moves by more than a half in all: V keeps to its step. A layer ends with the best of round to nearest,
GPTQ and what was learned, by E on the whole text.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from edgewise.calibration.hidden import Hidden
from edgewise.quantized import Block, Format, unpack
from edgewise_plugins.differentiable import Layer, Tensor
from edgewise_plugins.quantize.blocks import Coded

BATCH_TOKENS = 2048  # that a step sees


class Learned:
    """A matrix whose rounding is learned; `weights` are float32 `[rows, columns]`."""

    def __init__(self, weights: np.ndarray, start: Coded, form: Format, *, device: str) -> None:
        self.form, self.shape = form, weights.shape
        padded = np.zeros((len(weights), start.codes[0].size), np.float32)
        padded[:, : weights.shape[1]] = weights
        codes, scales, zero_points = (torch.tensor(np.asarray(a, np.float32), device=device) for a in start)
        self.scales, self.zero_points = scales[..., None], zero_points[..., None]  # [rows, blocks, 1]
        self.steps = torch.tensor(padded, device=device).view(codes.shape) / self.scales
        near = self.steps.round() + self.zero_points
        self.start = torch.where(near.clamp(0, form.top) == codes, 0, codes - near)  # whole steps, from the nearest
        self.moved = torch.zeros_like(self.steps).requires_grad_()
        self.ends = [torch.ones_like(self.scales).requires_grad_() for _ in range(1 if form.symmetric else 2)]

    def weights(self) -> Tensor:
        """What the matrix is now, float32 `[rows, columns]`, with derivatives."""
        codes, factor, zero_points = self._parts()
        floats = (codes - zero_points) * (self.scales * factor)
        return floats.flatten(1)[:, : self.shape[1]]

    def coded(self) -> Coded:
        """What the matrix is now, as it is stored."""
        with torch.no_grad():
            codes, factor, zero_points = self._parts()
            scales = self.scales * factor
        sides = (tensor[..., 0].cpu().numpy() for tensor in (scales, zero_points))
        return Coded(codes.cpu().numpy().astype(np.uint8), *sides)

    def move(self, rate: float) -> None:
        """One step against the gradient."""
        with torch.no_grad():
            for parameter in (self.moved, *self.ends):
                assert parameter.grad is not None
                parameter -= rate * parameter.grad.sign()
                parameter.grad = None

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Codes as floats `[rows, blocks, block_size]`, the factor of the scale and zero points `[rows, blocks, 1]`."""
        low, high, top = self.ends[0], self.ends[-1], self.form.top
        factor = ((top - self.zero_points) * high + self.zero_points * low) / top
        zero_points = self.zero_points
        if not self.form.symmetric:
            zero_points = _rounded(zero_points * low / factor).clamp(0, top)
        codes = _rounded(self.steps / factor + self.start + self.moved) + zero_points
        return codes.clamp(0, top), factor, zero_points


def learn(
    layer: Layer,
    matrices: Mapping[str, Learned],
    entering: Hidden,
    leaving: Hidden,
    *,
    steps: int,
    seed: int,
) -> Iterator[int]:
    """Learn the rounding of a layer's matrices, by name, on the hidden states before and after; yields steps done."""
    rng = np.random.default_rng(seed)
    count, length = entering.shape[:2]
    for step in range(steps):
        chosen = rng.choice(count, min(count, max(1, BATCH_TOKENS // length)), replace=False)
        x, y = (layer.tensor(np.concatenate([h.read(row, row + 1) for row in chosen])) for h in (entering, leaving))
        weights = {name: matrix.weights().T for name, matrix in matrices.items()}
        (layer(x, weights) - y).square().mean().backward()  # type: ignore[no-untyped-call]
        for matrix in matrices.values():
            matrix.move((1 - (step + 0.5) / steps) / steps)
        yield step + 1


def error(layer: Layer, matrices: Mapping[str, Coded], entering: Hidden, leaving: Hidden) -> float:
    """The mean square of what a layer says with these matrices, by name, less what it should."""
    weights = {name: layer.tensor(_floats(coded, layer.columns(name)).T) for name, coded in matrices.items()}
    count, length = entering.shape[:2]
    rows, total = max(1, BATCH_TOKENS // length), 0.0
    with torch.no_grad():
        for start in range(0, count, rows):
            x, y = (layer.tensor(hidden.read(start, min(start + rows, count))) for hidden in (entering, leaving))
            total += float((layer(x, weights) - y).square().sum(dtype=torch.float64))
    return total / float(np.prod(entering.shape))


def coded_of(block: Block, form: Format) -> Coded:
    """Rows that are stored, as codes."""
    rows, blocks = block.scales.shape
    codes = unpack(block.packed, form.bits).reshape(rows, blocks, form.block_size)
    if block.zero_points is None:
        return Coded(codes, block.scales, np.full_like(block.scales, form.middle))
    return Coded(codes, block.scales, unpack(block.zero_points, form.bits)[:, :blocks].astype(np.float32))


def _rounded(x: Tensor) -> Tensor:
    """Whole numbers, with the derivative of what they were."""
    return x + (x.round() - x).detach()


def _floats(coded: Coded, columns: int) -> np.ndarray:
    return coded.weights().reshape(len(coded.scales), -1)[:, :columns]
