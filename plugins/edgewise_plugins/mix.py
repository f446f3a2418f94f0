"""plugins: mixed precision: bits for each matrix, so that a budget of bytes, time or KL divergence is kept.

What each choice does is measured: the mean KL divergence of the model with that matrix alone quantized, by GPTQ where
the method is, on a part of the calibration text. Divergences of several are taken to add up. 8 bits are not measured:
their error is that of 4 bits divided by 255 / 15, and their divergence, which is quadratic in small errors, by the
square of that; benchmarks/eight_bits.py holds it against what is measured.

Matrices that share an input (q, k and v; gate and up) are one item: they are packed, and run as one product.
"""

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import onnx_ir as ir

from edgewise.errors import GraphError, OptionError, RecipeError
from edgewise.graph import Linear, get_facts, linears
from edgewise.passes import Pass, calibration_of, context_of
from edgewise.planner.speed import Rates
from edgewise.planner.weights import Weights
from edgewise.planner.work import Product
from edgewise.quantized import BlockQuantized, Format
from edgewise.sizes import sizes_of, total
from edgewise.target import Target
from edgewise.tensors import Streamed, transpose
from edgewise_plugins.knapsack import Chosen, Option, cheapest, exchange, fill
from edgewise_plugins.quantize import CALIBRATED, quantize_model
from edgewise_plugins.quantize.blocks import quantize_rows
from edgewise_plugins.quantize.grid import grid
from edgewise_plugins.quantize.rules import ROUTERS, BlockSize, Choice, Method

logger = logging.getLogger(__name__)

BITS = (2, 4, 8)
MEASURED = (2, 4)
TOKENS = 1024  # that divergences are measured on
NS_PER_WEIGHT = {2: 0.015, 4: 0.027, 8: 0.035}  # benchmarks/kernels.py: one thread of an AMD EPYC with VNNI
EIGHT_BY_FOUR = (15 / 255) ** 2
GUESS = 8.0  # a model at 4 bits then has 0.03, as small models have

Items = Mapping[str, Sequence[Option]]


@dataclass(frozen=True)
class Mix(Pass):
    """Quantizes each matrix to 2, 4 or 8 bits, as few as a budget of quality allows or as many as one of size does.

    `max_bytes` bounds the weights of the whole model, `max_ms` the time of its matrix products for a token: on the
    target, where its profile says how fast that is, else on one thread of an x86-64 processor with VNNI;
    `max_mean_kld` bounds the estimated KL divergence to the float model. With `max_mean_kld` the smallest mix that
    keeps to it is taken; without, the closest that fits. Needs a calibration text.
    """

    name: ClassVar[str] = "mix"

    max_bytes: int | None = None
    max_ms: float | None = None
    max_mean_kld: float | None = None
    block_size: BlockSize = 128
    symmetric: bool = False
    method: Method = "gptq"
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        budgets = {"max_bytes": self.max_bytes, "max_ms": self.max_ms, "max_mean_kld": self.max_mean_kld}
        if all(value is None for value in budgets.values()):
            raise OptionError(f"a mix needs a budget; give one of {', '.join(budgets)}")
        for key, value in budgets.items():
            if value is not None and not value > 0:
                raise OptionError(f"{key}: {value} is not more than 0")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        items = items_of(model)
        self._expect(model, len(items))
        choices = self.find(model, items)
        quantize_model(model, choices, damping=self.damping)
        for bits, count in sorted(Counter(choice.form.bits for choice in choices.values()).items()):
            logger.info("mix: %d of %d matrices at %d bits", count, len(choices), bits)
        return ir.passes.PassResult(model, modified=bool(choices))

    def _expect(self, model: ir.Model, items: int) -> None:
        """Say what measuring takes, for the plan of the build."""
        from edgewise.quality.sensitivity import sensitivity_cost  # whose module runs models

        calibration = calibration_of(model, needed_by="pass 'mix'")
        calibration.expect(sensitivity_cost(model, len(MEASURED) * items, calibration.shape(TOKENS)))
        if self.method in CALIBRATED:
            calibration.expect_statistics(model, gram=True)

    def find(self, model: ir.Model, items: Mapping[str, Sequence[Linear]]) -> dict[str, Choice]:
        """What each matrix becomes, by name. Raises RecipeError, with the closest that can be had."""
        forms = {bits: Format(bits, self.block_size, self.symmetric) for bits in BITS}
        options = self._options(model, items, forms)
        rest = total(sizes_of(model)).bytes - sum(linear.matrix.nbytes for group in items.values() for linear in group)
        chosen = self._solve(options, rest)
        logger.info(
            "mix: %s bytes, %.3g ms of products a token, estimated mean KL divergence %.4g",
            f"{rest + _bytes(chosen):,}",
            _ms(chosen),
            _loss(chosen),
        )
        for name, option in chosen.items():
            logger.debug("%d bits: %s", option.bits, ", ".join(linear.name for linear in items[name]))
        return {
            linear.name: Choice(forms[option.bits], self.method)
            for name, option in chosen.items()
            for linear in items[name]
        }

    def _options(self, model: ir.Model, items: Mapping[str, Sequence[Linear]], forms: Mapping[int, Format]) -> Items:
        losses = _guessed(items) if context_of(model).dry else self._losses(model, items, forms)
        share = {"embedding": 0.0, "expert": get_facts(model).active_experts}  # that a token multiplies
        target = context_of(model).target

        def option(name: str, bits: int) -> Option:
            form, shapes = forms[bits], [linear.matrix.dims for linear in items[name]]
            stored = sum(form.stored_bytes(rows, columns) for rows, columns in shapes)
            ms = sum(product_ms(target, form, rows, columns) for rows, columns in shapes)
            return Option(bits, stored, ms * share.get(items[name][0].role.partition(".")[0], 1), losses[name, bits])

        return {name: [option(name, bits) for bits in BITS] for name in items}

    def _losses(
        self, model: ir.Model, items: Mapping[str, Sequence[Linear]], forms: Mapping[int, Format]
    ) -> dict[tuple[str, int], float]:
        losses = self.measured(model, items, {bits: forms[bits] for bits in MEASURED})
        return losses | {(name, 8): losses[name, 4] * EIGHT_BY_FOUR for name in items}

    def measured(
        self, model: ir.Model, items: Mapping[str, Sequence[Linear]], forms: Mapping[int, Format]
    ) -> dict[tuple[str, int], float]:
        """The mean KL divergence that each item alone costs, by its name and the bits of the format."""
        from edgewise.quality.sensitivity import sensitivity  # runs the model: more than a plan needs

        calibration = calibration_of(model, needed_by="pass 'mix'")
        sequences = calibration.part(TOKENS)
        changed = self._changed(model)
        changes = {
            f"{bits} {name}": {linear.name: changed(linear, form) for linear in group}
            for name, group in items.items()
            for bits, form in forms.items()
        }
        found = sensitivity(model, changes, sequences, context=calibration.context, progress=calibration.progress)
        return {(name, bits): found[f"{bits} {name}"] for name in items for bits in forms}

    def _changed(self, model: ir.Model) -> Callable[[Linear, Format], Streamed]:
        """What quantizes one matrix for a measurement."""
        if self.method not in CALIBRATED:
            return _on_grids
        from edgewise_plugins.quantize.alone import Alone

        calibration = calibration_of(model, needed_by="pass 'mix'")
        alone = Alone(model, calibration.statistics(model, gram=True), self.damping)

        def changed(linear: Linear, form: Format) -> Streamed:
            if not alone.can(linear):
                return _on_grids(linear, form)
            return _stored(linear, alone.quantized(linear, form))

        return changed

    def _solve(self, options: Items, rest: int) -> Chosen:
        def fits(chosen: Chosen) -> bool:
            small = self.max_bytes is None or rest + _bytes(chosen) <= self.max_bytes
            return small and (self.max_ms is None or _ms(chosen) <= self.max_ms)

        def enough(chosen: Chosen) -> bool:
            return self.max_mean_kld is not None and _loss(chosen) <= self.max_mean_kld

        least = cheapest(options, self._cost)
        if not fits(least):
            raise RecipeError(
                f"no mix keeps to {self._bounds()}: the smallest takes {rest + _bytes(least):,} bytes "
                f"and {_ms(least):.3g} ms"
            )
        chosen = fill(options, fits, enough, self._cost)
        if self.max_mean_kld is None or not enough(chosen):
            chosen = exchange(options, chosen, fits)
        if self.max_mean_kld is not None and not enough(chosen):
            free = fill(options, lambda _: True, enough, self._cost)
            best = f"the closest that fits has about {_loss(chosen):.3g}"
            if enough(free):
                best += f"; one that keeps to it takes {rest + _bytes(free):,} bytes and {_ms(free):.3g} ms"
            raise RecipeError(f"no mix keeps to {self._bounds()}: {best}")
        return chosen

    def _cost(self, option: Option) -> float:
        """Of what is bounded, the shares that an option takes; bytes where neither these nor time are."""
        if self.max_bytes is None and self.max_ms is None:
            return option.bytes
        return option.bytes / (self.max_bytes or math.inf) + option.ms / (self.max_ms or math.inf)

    def _bounds(self) -> str:
        bounds = {"max_bytes": self.max_bytes, "max_ms": self.max_ms, "max_mean_kld": self.max_mean_kld}
        return " and ".join(f"{key} = {value:,}" for key, value in bounds.items() if value is not None)


def product_ms(target: Target | None, form: Format, rows: int, columns: int) -> float:
    """What a matrix of this format takes for a token, by the profile of the target if it has figures."""
    rates = Rates(target.hardware, target.numerics) if target else None
    if rates is None or not rates.known:
        return rows * columns * NS_PER_WEIGHT[form.bits] * 1e-6
    weights = Weights(f"int{form.bits}", form.block_size, zero_points=not form.symmetric)
    return 1e3 * rates.product(Product("", rows, columns, weights), 1)


def items_of(model: ir.Model) -> dict[str, list[Linear]]:
    """Matrices by what they share: input, operator, or the matrix itself. Raises GraphError for quantized ones."""
    items: dict[str, list[Linear]] = {}
    for linear in linears(model):
        if isinstance(linear.matrix, BlockQuantized):
            raise GraphError(
                f"'{linear.name}' is quantized already ({linear.matrix.form}), and a mix chooses the bits of all "
                "matrices: no step before it quantizes, and a checkpoint that comes quantized keeps what it has"
            )
        if linear.role in ROUTERS:
            continue
        if linear.role in ("embedding", "lm_head"):
            items[linear.name] = [linear]  # of a tied one the lm_head, which is what takes time
        else:
            items.setdefault(_shared(linear), []).append(linear)
    return items


def _shared(linear: Linear) -> str:
    if linear.expert is not None:
        return f"layer {linear.layer}, experts"  # one operator, of one width
    value = linear.node.inputs[0]
    assert value is not None
    return str(value.name)


def _elements(group: Sequence[Linear]) -> int:
    return sum(linear.matrix.size for linear in group)


def _guessed(items: Mapping[str, Sequence[Linear]]) -> dict[tuple[str, int], float]:
    """For a plan, which measures nothing: all weights matter alike, by the square of their step."""
    whole = sum(map(_elements, items.values()))
    return {(name, bits): GUESS * _elements(group) / whole / 4**bits for name, group in items.items() for bits in BITS}


def _on_grids(linear: Linear, form: Format) -> Streamed:
    matrix = linear.matrix
    return _stored(
        linear, BlockQuantized(matrix.dims, form, partial(quantize_rows, grid, matrix, form), name=linear.name)
    )


def _stored(linear: Linear, matrix: BlockQuantized) -> Streamed:
    """As the initializer has it."""
    return matrix if linear.stored_by_rows else transpose(matrix)


def _bytes(chosen: Chosen) -> int:
    return sum(option.bytes for option in chosen.values())


def _ms(chosen: Chosen) -> float:
    return sum(option.ms for option in chosen.values())


def _loss(chosen: Chosen) -> float:
    return sum(option.loss for option in chosen.values())
