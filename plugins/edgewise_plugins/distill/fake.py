"""plugins, distill: a quantized matrix that learns: what is computed with are always the weights that are stored.

LSQ (arXiv 1902.08153), and for scales alone the second phase of EfficientQAT (arXiv 2407.11062). For a block with scale
s and zero point z, and codes from 0 to top, learned are the floats W, which begin at what the codes stand for, and a
factor f of the scale, which begins at 1:

    code = clip(round(W / (f s)) + z, 0, top)          weight = (code - z) f s

Rounding counts as having the derivative 1 (straight-through, arXiv 1308.3432). Zero points stay.
"""

import numpy as np
import torch

from edgewise.quantized import Block, BlockQuantized
from edgewise_plugins.quantize.autoround import coded_of
from edgewise_plugins.quantize.blocks import Coded

Tensor = torch.Tensor


class FakeQuantized(torch.nn.Module):
    """A matrix in blocks; called, the float weights `[out, in]` that it stands for, or `turned` `[in, out]`."""

    def __init__(self, matrix: BlockQuantized, *, turned: bool, only_scales: bool) -> None:
        super().__init__()
        self.form, self.shape, self.turned = matrix.form, (matrix.dims[0], matrix.dims[1]), turned
        coded = coded_of(matrix.quantized(0, matrix.dims[0]), matrix.form)
        self.scales: Tensor
        self.zero_points: Tensor
        self.steps: Tensor | None
        for name in ("scales", "zero_points"):  # [rows, blocks, 1]
            self.register_buffer(name, torch.tensor(getattr(coded, name)[..., None]), persistent=False)
        steps = torch.tensor(coded.codes.astype(np.float32)) - self.zero_points
        self.register_buffer("steps", steps.to(torch.int16) if only_scales else None, persistent=False)
        self.factor = torch.nn.Parameter(torch.ones_like(self.scales))
        if not only_scales:
            self.weight = torch.nn.Parameter((steps * self.scales).flatten(1))

    def forward(self) -> Tensor:
        floats = (self._steps() * (self.scales * self.factor)).flatten(1)[:, : self.shape[1]]
        return floats.T if self.turned else floats

    def quantized(self, name: str) -> BlockQuantized:
        """The matrix as it is now, as a bundle stores it."""
        with torch.no_grad():
            codes = (self._steps() + self.zero_points).cpu().numpy().astype(np.uint8)
            scales = (self.scales * self.factor)[..., 0].cpu().numpy()
        stored = Coded(codes, scales, self.zero_points[..., 0].cpu().numpy()).stored(self.form)

        def rows(start: int, stop: int) -> Block:
            zero_points = None if stored.zero_points is None else stored.zero_points[start:stop]
            return Block(stored.packed[start:stop], stored.scales[start:stop], zero_points)

        return BlockQuantized(self.shape, self.form, rows, name=name)

    def _steps(self) -> Tensor:
        """Codes less zero points, `[rows, blocks, block_size]`."""
        if self.steps is not None:
            return self.steps.to(self.factor.dtype)
        x = self.weight.view(*self.scales.shape[:2], -1) / (self.scales * self.factor)
        rounded = x + (x.round() - x).detach()
        return torch.clamp(rounded + self.zero_points, 0, self.form.top) - self.zero_points
