"""plugins: how each quantized product treats its activations, by what int8 does to it on the calibration text.

A target that multiplies integers rounds activations to int8, in blocks as long as those of the weights: ONNX Runtime at
accuracy level 4. Where a few channels are massive, what the other channels of their block say is lost. In smaller
blocks fewer of them are hit, and the weights stay what they are: each block's scale and zero point are said twice, or
four times. Where that is not enough, activations stay in floats (accuracy level 0).
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.errors import OptionError
from edgewise.graph import FLOAT, Linear, linears, state_activations
from edgewise.integer import Int8Rows
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quantized import BlockQuantized, Format, split

logger = logging.getLogger(__name__)

TOKENS = 512  # that errors are measured on
SMALLER = (64, 32)  # blocks that kernels have, in the order of their cost
FLOAT_BITS = (4,)  # products of floats with 2 and with 8 bits take a hundred times as long: there is no kernel


@dataclass(frozen=True)
class AccuracyLevel(Pass):
    """Keeps int8 activations from spoiling a product: in smaller blocks, or in floats, where they would.

    Each quantized product is measured on a part of the calibration text: the noise that int8 activations bring, as a
    share of what tells one token's result from another's. It is 0.01 or so as a rule, where weights of 4 bits bring
    0.1. Above `max_error` the largest block is taken that keeps to it, else, for weights of 4 bits, activations in
    float32, which take four times as long. Comes after `quantize`; weights stay what they are.
    """

    name: ClassVar[str] = "accuracy-level"

    max_error: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_error > 0:
            raise OptionError(f"max_error: {self.max_error} is not more than 0")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'accuracy-level'")
        calibration.expect_statistics(model, tokens=TOKENS)
        groups = _groups(model)
        if not groups or context_of(model).dry:
            return ir.passes.PassResult(model, modified=False)
        measure = _Measure(model, calibration)
        errors = measure([linear.name for group in groups for linear in group])
        worst = max(errors, key=errors.__getitem__)
        logger.info("int8 activations: at most %.2g of a product is noise ('%s')", errors[worst], worst)
        coarse = [group for group in groups if _worst(group, errors) > self.max_error]
        for group in coarse:
            self._refine(group, _worst(group, errors), measure)
        return ir.passes.PassResult(model, modified=bool(coarse))

    def _refine(self, group: Sequence[Linear], error: float, measure: "_Measure") -> None:
        """Find what suffices for products that share an input and a format."""
        form, names = _form(group[0]), [linear.name for linear in group]
        found = {form.block_size: error}
        if not isinstance(form, Int8Rows):
            for size in (size for size in SMALLER if size < form.block_size):
                found[size] = _worst(group, measure(names, size))
                if found[size] <= self.max_error:
                    break
        size = min(found, key=found.__getitem__)
        kind = FLOAT if found[size] > self.max_error and form.bits in FLOAT_BITS else f"int8, block {size}"
        if found[size] > self.max_error and kind != FLOAT:
            logger.warning(
                "%s: int8 activations make noise of %.2g of it, and %s has no product with floats; keep it in floats, "
                "or quantize it to 4 bits",
                _said(names),
                found[size],
                form,
            )
        if kind == FLOAT or size != form.block_size:
            logger.info("%s: %s (int8, block %d: %.2g is noise)", _said(names), kind, form.block_size, error)
            for linear in group:
                _settle(linear, kind, size)


class _Measure:
    """What int8 activations do to some products of a model, in blocks of a size; None: those of the weights."""

    def __init__(self, model: ir.Model, calibration: Calibration) -> None:
        self.model, self.context, self.progress = model, calibration.context, calibration.progress
        self.sequences: np.ndarray = calibration.part(TOKENS)

    def __call__(self, names: Collection[str], block_size: int | None = None) -> dict[str, float]:
        from edgewise.quality.activations import activation_errors  # runs the model: more than a plan needs

        return activation_errors(
            self.model,
            self.sequences,
            names=names,
            block_size=block_size,
            context=self.context,
            progress=self.progress,
        )


def _groups(model: ir.Model) -> list[list[Linear]]:
    """Quantized products that share their input and their format: they are packed, and run as one."""
    groups: dict[tuple[ir.Value | None, Format], list[Linear]] = {}
    for linear in linears(model):
        if linear.node.op_type == "MatMul" and isinstance(linear.matrix, BlockQuantized):
            groups.setdefault((linear.node.inputs[0], linear.matrix.form), []).append(linear)
    return list(groups.values())


def _form(linear: Linear) -> Format:
    assert isinstance(linear.matrix, BlockQuantized)
    return linear.matrix.form


def _worst(group: Sequence[Linear], errors: Mapping[str, float]) -> float:
    return max(errors[linear.name] for linear in group)


def _settle(linear: Linear, kind: str, size: int) -> None:
    state_activations(linear.node, kind)
    matrix = linear.matrix
    assert isinstance(matrix, BlockQuantized)
    if kind != FLOAT:
        linear.replace(split(matrix, size))


def _said(names: Sequence[str]) -> str:
    return " and ".join(f"'{name}'" for name in names)
