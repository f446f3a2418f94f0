"""tests: quantized matrices that learn: what they compute with is what is stored, and what is stored has its form."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

import tiny
from canonical import calibrated, graph, logits, tokens
from edgewise.graph import linears
from edgewise.passes import context_of
from edgewise.quantized import BlockQuantized, Format
from edgewise.tensors import constant
from edgewise_plugins.distill.fake import FakeQuantized
from edgewise_plugins.distill.learn import Distill
from edgewise_plugins.distill.plan import Training
from edgewise_plugins.quantize import Quantize

TEXT = tokens(24, 32)
SHORT = Training(steps=24, batch=4, evaluate=8, rate=5e-3)
FORMS = [Format(bits, 32, symmetric) for bits in (2, 4, 8) for symmetric in (False, True)]

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Matrices this small take longer on two."""
    torch.set_num_threads(1)


def quantized(model: ir.Model) -> dict[str, BlockQuantized]:
    return {x.name: x.matrix for x in linears(model) if isinstance(x.matrix, BlockQuantized)}


def stored(matrix: BlockQuantized) -> list[np.ndarray]:
    block = matrix.quantized(0, matrix.dims[0])
    return [block.packed, block.scales, *([] if block.zero_points is None else [block.zero_points])]


def matrix(form: Format) -> BlockQuantized:
    """Of 5 rows and 72 columns: the last block is filled up."""
    weights = np.random.default_rng(0).normal(size=(72, 5)).astype(np.float32)
    model = graph_of(weights)
    Quantize(bits=form.bits, block_size=32, symmetric=form.symmetric)(model)  # type: ignore[arg-type]
    (found,) = quantized(model).values()
    return found


def graph_of(weights: np.ndarray) -> ir.Model:
    """One product."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, len(weights)]))
    value = ir.Value(name="w", const_value=constant(weights), shape=ir.Shape(weights.shape))
    value.type = ir.TensorType(ir.DataType.FLOAT)
    node = ir.node("MatMul", [x, value])
    node.metadata_props["edgewise.role"] = "mlp.up"
    return ir.Model(ir.Graph([x], node.outputs, nodes=[node], initializers=[value]), ir_version=10)


@pytest.mark.parametrize("only_scales", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_has_not_learned_is_stored_as_it_was(form: Format, only_scales: bool) -> None:
    before = matrix(form)
    fake = FakeQuantized(before, turned=False, only_scales=only_scales)
    after = fake.quantized("w")
    assert all(np.array_equal(a, b) for a, b in zip(stored(before), stored(after), strict=True))
    with torch.no_grad():
        assert np.array_equal(fake().numpy(), before.numpy())


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_computed_with_is_what_is_stored(form: Format) -> None:
    fake = FakeQuantized(matrix(form), turned=True, only_scales=False)
    with torch.no_grad():
        fake.weight.add_(0.3 * torch.randn(fake.weight.shape, generator=torch.Generator().manual_seed(0)))
        fake.factor.mul_(1.1)
        assert np.array_equal(fake().T.numpy(), fake.quantized("w").numpy())


def test_weights_and_scales_have_straight_through_derivatives() -> None:
    """By LSQ: of a weight in range 1, beyond it 0; of a scale the code, less where the weight itself is."""
    form = Format(4, 32, symmetric=False)
    fake = FakeQuantized(matrix(form), turned=False, only_scales=False)
    with torch.no_grad():
        fake.weight.add_(0.4 * torch.randn(fake.weight.shape, generator=torch.Generator().manual_seed(0)))
    fake().sum().backward()
    steps = fake.weight.detach().view(*fake.scales.shape[:2], -1) / fake.scales
    codes = steps.round() + fake.zero_points
    inside = (codes >= 0) & (codes <= form.top)
    edge = codes.clamp(0, form.top) - fake.zero_points
    real = torch.ones_like(fake.weight)
    real[:, 72:] = 0  # what fills up the last block is not there
    real = real.view(steps.shape)
    assert fake.weight.grad is not None
    assert fake.factor.grad is not None
    assert torch.equal(fake.weight.grad.view(steps.shape), inside * real)
    expected = (torch.where(inside, steps.round() - steps, edge) * fake.scales * real).sum(dim=-1, keepdim=True)
    assert torch.allclose(fake.factor.grad, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "learn"),
    [
        ("llama", "scales"),
        ("gemma2", "weights"),
        pytest.param("llama", "weights", marks=pytest.mark.slow),
        pytest.param("gemma2", "scales", marks=pytest.mark.slow),
    ],
)
def test_what_rounding_lost_is_learned_again(family: str, learn: str, tmp_path: Path) -> None:
    model = graph(tiny.checkpoint(family, tmp_path))
    reference = model.clone()
    calibrated(model, TEXT)
    model.meta["edgewise"] = dataclasses.replace(context_of(model), reference=reference)
    expected = logits(model, TEXT)
    Quantize(bits=2, block_size=32, method="grid")(model)
    before, forms = np.square(logits(model, TEXT) - expected).mean(), quantized(model)
    Distill(learn=learn, training=SHORT)(model)  # type: ignore[arg-type]
    after = quantized(model)
    assert np.square(logits(model, TEXT) - expected).mean() < before
    assert {name: matrix.form for name, matrix in forms.items()} == {name: m.form for name, m in after.items()}
    moved = [not np.array_equal(stored(forms[name])[0], stored(after[name])[0]) for name in forms]
    assert any(moved) == (learn == "weights")
