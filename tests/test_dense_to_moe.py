"""tests: dense MLPs as mixtures of experts: the same function with all of them, a known one with some."""

from pathlib import Path

import numpy as np
import pytest
import torch

from canonical import PYCODER, calibrated, graph, logits, tokens
from edgewise.errors import EdgewiseError
from edgewise.graph import Roles, get_facts, linears
from edgewise.passes import BuildContext, Pass
from edgewise_plugins.distill.executor import Executor
from edgewise_plugins.moe.contributions import RouterFit, chosen
from edgewise_plugins.moe.dense import DenseToMoe
from edgewise_plugins.moe.split import split
from edgewise_plugins.quantize import Quantize
from edgewise_targets.ort.lower import LowerOrt
from mixtures import FRESH, experts_of, gates, lowered_logits, made, mix, mixture_of, router_of, seen

pytestmark = pytest.mark.usefixtures("cache")

SOME = DenseToMoe(experts=6, shared=2, active=2)
ALL = DenseToMoe(experts=6, shared=2, active=4)


@pytest.mark.parametrize("family", ["gemma2", "llama", "phi3", "qwen2"])
@pytest.mark.parametrize("shared", [0, 2])
def test_with_all_experts_it_is_the_dense_model(family: str, shared: int, home: Path) -> None:
    model = made(family, home)
    expected = logits(model, FRESH)
    DenseToMoe(experts=6, shared=shared, active=6 - shared)(model)
    assert not Roles.of(model).all("mlp.down", 0)
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-5 * np.abs(expected).max())


def test_with_all_experts_a_trained_model_is_what_it_was() -> None:
    text = tokens(4, 128, vocabulary=4096)
    model = calibrated(graph(PYCODER), text)
    expected = logits(model, text)
    DenseToMoe(experts=8, shared=2, active=6)(model)
    np.testing.assert_allclose(logits(model, text), expected, atol=1e-4)


def test_with_some_experts_it_is_the_mixture_of_numpy(home: Path) -> None:
    model = made("llama", home)
    SOME(model)
    mixture = mixture_of(model, 1)
    assert (mixture.count, mixture.active, mixture.equal) == (4, 2, True)
    x, found, y = seen(model, 1, FRESH)
    expected = gates(x @ router_of(model, 1).T, mixture)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(y, mix(x, experts_of(model, 1), expected), atol=1e-4)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("step", [SOME, DenseToMoe(experts=3, shared=0, active=2)])
def test_it_is_lowered_to_one_operator(step: DenseToMoe, quantized: bool, home: Path, tmp_path: Path) -> None:
    model = made("llama", home)
    step(model)
    if quantized:
        Quantize(bits=4, block_size=32)(model)
    expected = logits(model, FRESH)
    found = lowered_logits(model.clone(), FRESH, tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    kind = "QMoE" if quantized else "MoE"
    assert [node.op_type for node in LowerOrt()(model).model.graph].count(kind) == get_facts(model).layers


@pytest.mark.parametrize("steps", [[SOME], [SOME, Quantize(bits=8, block_size=32)]])
def test_it_can_learn(steps: list[Pass], home: Path) -> None:
    model = made("llama", home)
    for step in steps:
        step(model)
    found = Executor(model)(torch.tensor(FRESH))["logits"].detach().numpy()
    expected = logits(model, FRESH)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4 * np.abs(expected).max())


def test_neurons_are_dealt_out_once(home: Path) -> None:
    model = made("llama", home)
    rows = {linear.name: linear.matrix.numpy() for linear in linears(model) if linear.role == "mlp.up"}
    SOME(model)
    for number, whole in enumerate(rows.values()):
        parts = [one for one in linears(model) if one.layer == number and one.role in ("shared.up", "expert.up")]
        assert [part.matrix.dims[0] for part in parts] == [16] * 4 + [32]
        found = np.concatenate([part.matrix.numpy() for part in parts])
        np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(whole, axis=0))


def test_neurons_that_fire_together_are_one_expert_and_those_that_always_do_are_shared() -> None:
    generator = np.random.default_rng(2)
    kinds = np.repeat([-1, 0, 1, 2], 8)  # -1: on every token
    order = generator.permutation(len(kinds))
    topics = generator.integers(0, 3, 300)
    fires = (kinds[order] == -1) | (kinds[order] == topics[:, None])
    effects = np.where(fires, 1.0, 0.0) + 0.3 * generator.random((300, 32))
    effects[:, kinds[order] == -1] += 0.5
    dealt = split(effects, 4, 1, 1)
    np.testing.assert_array_equal(dealt.shared, np.flatnonzero(kinds[order] == -1))
    expected = {tuple(np.flatnonzero(kinds[order] == kind)) for kind in (0, 1, 2)}
    assert {tuple(group) for group in dealt.routed} == expected


def test_a_router_is_the_least_squares_fit_of_numpy_to_what_experts_contribute() -> None:
    generator = np.random.default_rng(4)
    x, downs = generator.normal(size=(90, 6)), [generator.normal(size=(6, 4)) for _ in range(3)]
    neurons = [generator.normal(size=(90, 4)) for _ in range(3)]
    fit = RouterFit(downs, 6)
    fit.add(x[:50], [h[:50] for h in neurons])
    fit.add(x[50:], [h[50:] for h in neurons])
    lengths = [np.linalg.norm(h @ down.T, axis=1) for h, down in zip(neurons, downs, strict=True)]
    wanted = np.log(np.stack(lengths, axis=1))
    damping = np.sqrt(0.01 * np.square(x).sum(axis=0).mean())
    design = np.concatenate([x, damping * np.eye(6)])
    target = np.concatenate([wanted - wanted.mean(axis=1, keepdims=True), np.zeros((6, 3))])
    np.testing.assert_allclose(fit.router(), np.linalg.lstsq(design, target)[0].T, atol=1e-6)
    scores = x @ fit.router().T
    picked = chosen(x, fit.router(), 2)
    assert (picked.sum(axis=1) == 2).all()
    assert (scores[picked].reshape(90, 2).min(axis=1) >= scores[~picked]).all()


def test_a_plan_has_the_shapes_of_the_mixture(home: Path) -> None:
    done, planned = made("llama", home), made("llama", home)
    context = planned.meta["edgewise"]
    planned.meta["edgewise"] = BuildContext(calibration=context.calibration, dry=True)
    DenseToMoe(experts=6, shared=2, active=4)(done)
    DenseToMoe(experts=6, shared=2, active=4)(planned)
    shapes = [{one.name: one.matrix.dims for one in linears(model)} for model in (done, planned)]
    assert shapes[0] == shapes[1]
    assert get_facts(done) == get_facts(planned)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("mixtral", {"experts": 4}, "no layer has a dense MLP: all are mixtures of experts already"),
        ("llama", {"experts": 5}, "experts: 5 slices do not divide the 96 neurons of layer 0"),
        ("llama", {"active": 7}, "active: 7 is not from 1 to 6, those that are routed"),
        ("llama", {"shared": -1}, "shared: -1 is not 0 or more"),
        ("llama", {"shared": 7}, "experts: 8 of which 7 are shared leave nothing to choose from"),
    ],
)
def test_what_cannot_be_split_is_one_line(family: str, options: dict[str, int], message: str, home: Path) -> None:
    model = made(family, home)
    with pytest.raises(EdgewiseError, match=message):
        DenseToMoe(**options)(model)
