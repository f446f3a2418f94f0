"""plugins, quantize: weights in blocks of few bits."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from edgewise._version import __version__
from edgewise.errors import GraphError, OptionError
from edgewise.extras import require
from edgewise.graph import Linear, linears
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.quantized import BlockQuantized, Format
from edgewise_plugins.quantize.blocks import Kernel, quantize_rows
from edgewise_plugins.quantize.grid import grid_for
from edgewise_plugins.quantize.hqq import hqq
from edgewise_plugins.quantize.nearest import nearest
from edgewise_plugins.quantize.rules import Bits, BlockSize, Choice, Method, Rule, assign

logger = logging.getLogger(__name__)

CALIBRATED = ("gptq", "autoround")
STEPS = 200  # as in the paper
KERNELS: Mapping[str, Kernel] = {"nearest": nearest, "hqq": hqq}


@dataclass(frozen=True)
class Quantize(Pass):
    """Stores weights in few bits, a scale for each block of columns.

    Every matrix product with a constant weight is quantized, the embedding and the lm_head too (once where they are
    tied). `rules` make exceptions; the first that matches wins:

        [[step]]
        pass = "quantize"
        rules = [
            { role = "lm_head", bits = 8 },
            { role = "attention.v", layers = "0-3", bits = 8, block_size = 32 },
            { weight = "*.down_proj.weight", keep = true },
        ]

    Methods, from the fastest to the closest: `nearest`; `grid`, which searches each block's scale and zero point;
    `hqq`, which lets a few weights be far off for the sake of the many; `gptq`, in which the columns of a matrix make
    up for each other's error; `autoround`, which begins with that and learns the rounding of each layer in `steps`, for
    which torch must be installed. The last two need a calibration text, and grid uses one if there is one.

    The graph keeps its shape and stays runnable: its weights are now the dequantized ones. But for these two methods no
    weight is read here; whoever reads or writes one quantizes it then, a block of rows at a time.
    """

    name: ClassVar[str] = "quantize"

    bits: Bits = 4
    block_size: BlockSize = 128
    symmetric: bool = False
    method: Method = "nearest"
    damping: float = 0.01  # of GPTQ: added to the diagonal of the second moments, times its mean
    steps: int = STEPS  # of autoround, for each layer
    rules: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.damping > 0:
            raise OptionError(f"damping: {self.damping} is not more than 0")
        if self.steps < 1:
            raise OptionError(f"steps: {self.steps} is not 1 or more")

    def choices(self, model: ir.Model) -> Mapping[str, Choice | None]:
        """What each weight becomes, by name, known from shapes alone; None: it stays as it is.

        So does a weight that comes quantized (others did, in the checkpoint) unless a rule wants it in another way.
        """
        default = Choice(Format(self.bits, self.block_size, self.symmetric), self.method)
        quantized = _quantized(model)
        choices = assign(linears(model), default, self.rules)
        return {name: None if name in quantized and choices[name] == default else choices[name] for name in choices}

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        choices = self.choices(model)
        if not choices:
            raise GraphError("the graph has no weights to quantize: no matrix product of it states a role")
        quantized = _quantized(model)
        if quantized == choices.keys():
            raise GraphError("every matrix is quantized already; give one step all the rules")
        quantize_model(model, choices, damping=self.damping, steps=self.steps)
        for choice, count in Counter(choices.values()).items():
            logger.info("%s: %d of %d matrices", choice or "kept as it is", count, len(choices))
        if quantized:
            logger.info("of these quantized already, and left so: %d", len(quantized))
        return ir.passes.PassResult(model, modified=any(choices.values()))


def _quantized(model: ir.Model) -> set[str]:
    return {linear.name for linear in linears(model) if isinstance(linear.matrix, BlockQuantized)}


def quantize_model(
    model: ir.Model, choices: Mapping[str, Choice | None], *, damping: float, steps: int = STEPS
) -> None:
    """Put the quantized matrices in the place of the float ones."""
    matrices = {linear.name: linear for linear in linears(model)}
    chosen = {name: choice for name, choice in choices.items() if choice}
    for name in chosen:
        if isinstance(matrix := matrices[name].matrix, BlockQuantized):
            raise GraphError(
                f"'{name}' is quantized already ({matrix.form}), and a rule wants it as {chosen[name]}; "
                "leave it out of the rules, or give one step all of them"
            )
    compensated = _compensable(model, chosen)
    forms = {name: choice.form for name, choice in chosen.items() if name in compensated}
    learned = {name for name in forms if chosen[name].method == "autoround"}
    if forms:
        _expect(model, forms, learned=bool(learned), steps=steps)
    dry = context_of(model).dry
    moments = _second_moments(model, chosen.keys() - compensated, chosen)
    key = _key(model, chosen, damping, steps) if forms and not dry else ""  # now: what is replaced is slow to read
    for name, choice in chosen.items():
        if dry or name not in compensated:
            _replace(matrices[name], choice, moments.get(name))
    if forms and not dry:
        from edgewise_plugins.quantize.sequential import quantize_by_layers

        quantize_by_layers(model, forms, key=key, damping=damping, learned=learned, steps=steps)


def _key(model: ir.Model, chosen: Mapping[str, Choice], damping: float, steps: int) -> str:
    """A hash of all that decides what GPTQ makes of a model."""
    from edgewise.calibration.fingerprint import array_digest, fingerprint

    calibration = calibration_of(model, needed_by="GPTQ")
    text = calibration.context, array_digest(calibration.sequences)
    return fingerprint(model, "quantize", __version__, dict(chosen), damping, steps, *text)


def _compensable(model: ir.Model, chosen: Mapping[str, Choice]) -> Collection[str]:
    """The matrices that GPTQ is to do, and can; for a method that begins with it, too."""
    asked = {name: choice.method for name, choice in chosen.items() if choice.method in CALIBRATED}
    if not asked:
        return ()
    if "autoround" in asked.values():
        require("torch")
    from edgewise_plugins.quantize.sequential import compensable  # runs the model: more than the other methods need

    return compensable(model, asked.keys(), method=min(asked.values()))


def _expect(model: ir.Model, forms: Mapping[str, Format], *, learned: bool, steps: int) -> None:
    """Say what is going to be taken, for the plan of the build."""
    from edgewise_plugins.quantize.cost import gptq_cost, learning_cost

    calibration = calibration_of(model, needed_by="GPTQ")
    calibration.expect(gptq_cost(model, forms, calibration.sequences.shape))
    if learned:
        calibration.expect(learning_cost(model, calibration.sequences.shape, steps=steps))


def _second_moments(model: ir.Model, names: Collection[str], chosen: Mapping[str, Choice]) -> Mapping[str, np.ndarray]:
    """Of the inputs of those matrices whose grids are searched; none without a calibration text."""
    context = context_of(model)
    searched = {name for name in names if chosen[name].method in ("grid", *CALIBRATED)}
    if not searched or context.calibration is None:
        return {}
    context.calibration.expect_statistics(model)
    if context.dry:
        return {}
    statistics = context.calibration.statistics(model)
    return {name: statistics[name].second_moment for name in searched if name in statistics}


def _replace(linear: Linear, choice: Choice, moments: np.ndarray | None) -> None:
    matrix, form = linear.matrix, choice.form
    kernel = KERNELS.get(choice.method) or grid_for(moments, form)
    linear.replace(BlockQuantized(matrix.dims, form, partial(quantize_rows, kernel, matrix, form), name=linear.name))
