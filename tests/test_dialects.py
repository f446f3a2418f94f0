"""tests: the operators that a dialect states: all that families, recipes and options leave, and no other one passes."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import pytest

import parity
from canonical import calibrated, tokens
from cases import CASES
from edgewise.checkpoint import Checkpoint
from edgewise.errors import LoweringError
from edgewise.graph import Roles
from edgewise.passes import BuildContext, Pass
from edgewise_exporters.foreign import adopt
from edgewise_exporters.t5 import T5
from edgewise_plugins.cache import QuantizeCache
from edgewise_plugins.moe.kept import skip_below
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Rule
from edgewise_plugins.w8a8 import W8A8
from edgewise_targets.dialect import Dialect
from edgewise_targets.ort.lower import LowerOrt
from edgewise_targets.primitive.lower import LowerPrimitive
from edgewise_targets.static.lower import LowerStatic
from encdec import KINDS, encoder_decoder
from foreign import FIXTURES, adopted
from test_foreign_recognised import changed


class Skip(Pass):
    """Skips experts whose gates are small, by a threshold that nobody has measured."""

    name: ClassVar[str] = "skip"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        skip_below(model, {1: 0.1})
        return ir.passes.PassResult(model, True)


RECIPES: dict[str, tuple[Pass, ...]] = {
    "floats": (),
    "int4": (Quantize(block_size=32),),
    "int8": (Quantize(bits=8, block_size=32),),
    "W8A8": (W8A8(),),
    "W8A8 with rows": (W8A8(head="rows"),),
    "int8 cache": (QuantizeCache(),),
}
TWO_FORMATS = (Quantize(block_size=32, rules=(Rule(role="expert.down", symmetric=True),)),)  # no one operator has both
DIALECTS = {
    "processor": LowerOrt(),
    "CUDA": LowerOrt(floats="float16", head_norms="inside"),
    "DirectML": LowerOrt(floats="float16", head_norms="reshaped", rotary="before", packed=False),
}
DIFFERENT = ("gemma3", "gpt_oss", "llama biased", "qwen3")  # norms of heads, tied heads, experts, biases
SPOILT: dict[str, tuple[Dialect, BuildContext]] = {
    "ort": (LowerOrt(), BuildContext()),
    "primitive": (LowerPrimitive(), BuildContext()),
    "static": (LowerStatic(), BuildContext(context=32, width=1)),
}


@pytest.fixture(scope="module")
def canonical(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ir.Model]:
    """A graph of a case; its checkpoint is the one that other files of tests have made."""
    made: dict[str, ir.Model] = {}

    def graph(name: str) -> ir.Model:
        if name not in made:
            made[name] = parity.export(name, tmp_path_factory.getbasetemp())
        return made[name].clone()

    return graph


def test_what_ort_states_is_what_families_recipes_and_options_leave(
    canonical: Callable[[str], ir.Model], home: Path
) -> None:
    """Of all combinations, some are refused for what they are, and none for an operator that is left."""
    left, refused = set[tuple[str, str]](), set[str]()
    for name, steps, dialects in combinations():
        model = calibrated(canonical(name), tokens(1, 16))
        for step in steps:
            step(model)
        for dialect in dialects:
            lowered = model.clone()
            try:
                dialect(lowered)
            except LoweringError as error:
                refused.add(str(error))
            else:
                left |= {(node.domain, node.op_type) for node in lowered.graph}
    for model in (*foreign_graphs(), *encoder_decoders(home)):
        left |= {(node.domain, node.op_type) for node in LowerOrt()(model).model.graph}
    assert not [error for error in refused if "has no form in the dialect" in error]
    assert left == {(domain, name) for domain, names in LowerOrt.remaining.items() for name in names}


def foreign_graphs() -> Iterator[ir.Model]:
    """Decoders that others have exported; two of them with activations that are none that is known."""
    yield from map(adopted, ("gpt2", "opt"))
    for name, number, other in (("gpt2", 0.044715, 0.05), ("gpt_neox", 2**0.5, 1.3)):
        yield adopt(changed(name, number, other), Checkpoint.open(FIXTURES / name))


def encoder_decoders(home: Path) -> Iterator[ir.Model]:
    for kind in KINDS:
        encoder_decoder(kind, home / kind)
        yield T5().export(Checkpoint.open(home / kind))


def combinations() -> Iterator[tuple[str, tuple[Pass, ...], Collection[Dialect]]]:
    """Every family; every recipe for every kind of device, with some families that differ most."""
    for name in CASES:
        yield name, (), [LowerOrt()]
    for name in DIFFERENT:
        for steps in RECIPES.values():
            yield name, steps, DIALECTS.values()
    for steps in (TWO_FORMATS, (Skip(),)):
        yield "gpt_oss", steps, [LowerOrt()]


@pytest.mark.parametrize("dialect", SPOILT)
def test_another_operator_is_refused_with_its_node_and_its_role(
    dialect: str, canonical: Callable[[str], ir.Model]
) -> None:
    lowering, context = SPOILT[dialect]
    model = canonical("llama")
    model.meta["edgewise"] = context
    Roles.of(model).one("attention.residual", 1).op_type = "Mod"
    said = rf"\(Mod, role 'attention.residual'\) has no form in the dialect '{dialect}'; it has Add, "
    with pytest.raises(LoweringError, match=said):
        lowering(model)
