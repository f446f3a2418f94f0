"""tests: a narrower residual stream: the same where nothing was lost, by least squares where something was."""

from itertools import product
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common
import pytest
from numpy.testing import assert_allclose

import tiny
from canonical import calibrated, graph, logits, tokens
from cases import CASES
from edgewise.calibration.cache import scratch
from edgewise.calibration.walk import Walk
from edgewise.errors import EdgewiseError, GraphError
from edgewise.graph import Linear, Roles, get_facts, linears
from edgewise.tensors import constant, streamed
from edgewise_plugins.prune.head import onto
from edgewise_plugins.prune.hidden import PruneHidden
from edgewise_plugins.prune.stream import Stream

TEXT, FRESH = tokens(24, 48), tokens(4, 48, seed=9)
TURNED = ["llama tied", "llama biased", "phi3"]
FAMILIES = [*TURNED, "gemma2", "olmo2", "qwen2_moe"]
WIDTH, LEFT = 64, 32

pytestmark = pytest.mark.usefixtures("cache")


def made(case: str, folder: Path) -> ir.Model:
    return calibrated(graph(tiny.checkpoint(CASES[case].family, folder, **CASES[case].overrides)), TEXT)


def by_role(model: ir.Model, role: str) -> Linear:
    return next(linear for linear in linears(model) if linear.role == role)


def distance(model: ir.Model, expected: np.ndarray) -> float:
    return float(np.square(logits(model, FRESH) - expected).mean())


def confine(model: ir.Model, onto: np.ndarray) -> None:
    """Leave in the stream what a projection `[hidden, hidden]` leaves of it."""
    stream = Stream.of(model, needed_by="a test")
    stream.embedding.replace(constant(stream.embedding.matrix.numpy().astype(np.float32) @ onto))
    for linear in stream.writers:
        linear.replace(constant(onto @ linear.matrix.numpy().astype(np.float32)))
    gains = {norm.inputs[1] for norm in stream.norms}
    for value in set(stream.constants) - gains:
        value.const_value = constant(onto @ streamed(value.const_value).numpy(), name=value.name)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("case", FAMILIES)
def test_channels_that_hold_nothing_change_nothing_when_they_go(case: str, refit: bool, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    confine(model, np.diag(np.arange(WIDTH) % 2).astype(np.float32))
    expected = logits(model, FRESH)
    PruneHidden(keep=0.5, multiple=1, refit=refit)(model)
    assert get_facts(model).hidden_size == LEFT
    assert_allclose(logits(model, FRESH), expected, atol=(1e-3 if refit else 1e-5) * np.abs(expected).max())


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("case", TURNED)
def test_directions_that_hold_nothing_change_nothing_when_they_go(case: str, refit: bool, tmp_path: Path) -> None:
    model = made(case, tmp_path)
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, LEFT)))[0]
    confine(model, (basis @ basis.T).astype(np.float32))
    expected = logits(model, FRESH)
    PruneHidden(keep=0.5, multiple=1, method="slice", refit=refit)(model)
    assert get_facts(model).hidden_size == LEFT
    assert_allclose(logits(model, FRESH), expected, atol=(1e-3 if refit else 1e-4) * np.abs(expected).max())


ALIKE = [("llama biased", "channels"), ("phi3", "channels"), ("gemma2", "channels"), ("llama biased", "slice")]


@pytest.mark.parametrize(
    ("case", "method"),
    [
        pytest.param(*each, marks=pytest.mark.slow if each in ALIKE else ())
        for each in product(FAMILIES, ("channels", "slice"))
    ],
)
def test_what_is_lost_is_made_up_for(case: str, method: str, tmp_path: Path) -> None:
    if method == "slice" and case not in TURNED:
        with pytest.raises(GraphError, match=r"cannot be rotated.*; method 'channels' rotates nothing"):
            PruneHidden(method="slice", multiple=1)(made(case, tmp_path))
        return
    expected = logits(made(case, tmp_path), FRESH)
    distances = {}
    for refit in (True, False):
        model = made(case, tmp_path)
        PruneHidden(keep=0.75, multiple=16, method=method, refit=refit)(model)  # type: ignore[arg-type]
        assert by_role(model, "attention.q").matrix.dims[1] == by_role(model, "attention.o").matrix.dims[0] == 48
        onnx_ir.passes.common.CheckerPass()(model)
        distances[refit] = distance(model, expected)
    assert distances[True] < distances[False]


def test_what_reads_the_stream_is_what_least_squares_gives(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    whole, query = entering(model), by_role(model, "attention.q").matrix.numpy()
    PruneHidden(keep=0.5, multiple=1, damping=1e-9)(model)
    left = entering(model)
    told, *_ = np.linalg.lstsq(left, whole, rcond=None)
    assert_allclose(by_role(model, "attention.q").matrix.numpy(), query @ told.T, atol=1e-3)


def entering(model: ir.Model) -> np.ndarray:
    """What the first attention reads."""
    norm = Roles.of(model).one("attention.norm", 0).outputs[0].name
    with scratch() as folder:
        found = [values[str(norm)] for values in Walk(model, TEXT, folder=folder).values(0, [str(norm)])]
    return np.concatenate(found).reshape(TEXT.size, -1)


def test_the_matrix_before_a_tied_head_is_what_least_squares_gives() -> None:
    rng = np.random.default_rng(2)
    table, left = rng.normal(size=(30, 8)).astype(np.float32), np.array([0, 2, 3, 6])
    expected, *_ = np.linalg.lstsq(table[:, left], table, rcond=None)
    assert_allclose(onto(constant(table), left, damping=0), expected, atol=1e-5)


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    model = made("llama tied", tmp_path)
    PruneHidden(keep=0.5, multiple=1, method="slice")(model)
    embedding, head = by_role(model, "embedding"), by_role(model, "lm_head")
    assert embedding.value is head.value
    assert get_facts(model).tied
    assert by_role(model, "lm_head.turn").matrix.dims == (LEFT, LEFT)


@pytest.mark.parametrize("method", ["channels", "slice"])
def test_a_block_that_reads_nothing_is_no_obstacle(method: str, tmp_path: Path) -> None:
    model = made("llama tied", tmp_path)
    gain = Roles.of(model).one("mlp.norm", 1).inputs[1]
    assert gain is not None
    gain.const_value = constant(np.zeros(WIDTH, np.float32), name=gain.name)
    PruneHidden(keep=0.75, multiple=16, method=method)(model)  # type: ignore[arg-type]
    assert np.isfinite(logits(model, FRESH)).all()


def test_all_channels_are_the_model_itself(tmp_path: Path) -> None:
    assert not PruneHidden(keep=1.0)(made("llama", tmp_path)).modified


def test_what_reads_the_stream_in_a_way_of_its_own_is_named(tmp_path: Path) -> None:
    model = made("llama", tmp_path)
    add = Roles.of(model).one("attention.residual", 1)
    odd = ir.node("Abs", [add.inputs[0]], name="odd")
    odd.outputs[0].name, odd.outputs[0].shape = "odd.output", add.outputs[0].shape
    add.prepend(odd)
    add.replace_input_with(0, odd.outputs[0])
    with pytest.raises(EdgewiseError, match=r"node 'odd' \(role 'None'\) reads the residual stream"):
        PruneHidden()(model)
