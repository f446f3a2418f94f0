"""tests: experts that become one, and routers fitted anew, beside brute force and NumPy."""

import itertools
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from canonical import logits
from edgewise.errors import EdgewiseError
from edgewise.graph import get_facts, linears
from edgewise.passes import Pass
from edgewise.tensors import constant
from edgewise_plugins.moe.align import Correlations, Expert, average, match
from edgewise_plugins.moe.assignment import assign
from edgewise_plugins.moe.groups import group, shares, squares
from edgewise_plugins.moe.merge import MergeExperts
from edgewise_plugins.moe.mixtures import routers
from edgewise_plugins.moe.prune import ActiveExperts
from edgewise_plugins.quantize import Quantize
from mixtures import FAMILIES, FRESH, experts_of, gates, lowered_logits, made, mix, mixture_of, router_of, seen

pytestmark = pytest.mark.usefixtures("cache")

GENERATOR = np.random.default_rng(11)


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_partners_are_those_of_the_least_cost(size: int) -> None:
    for _ in range(20):
        costs = GENERATOR.normal(size=(size, size))
        found = assign(costs)
        assert sorted(found) == list(range(size))
        least = min(costs[range(size), list(order)].sum() for order in itertools.permutations(range(size)))
        assert costs[np.arange(size), found].sum() == pytest.approx(least)


def test_many_partners_that_are_known_are_found() -> None:
    order = GENERATOR.permutation(300)
    costs = GENERATOR.random((300, 300)) + 1
    costs[np.arange(300), order] = 0.5
    np.testing.assert_array_equal(assign(costs), order)


def test_units_in_another_order_and_with_another_sign_are_found() -> None:
    x, units = GENERATOR.normal(size=(400, 8)), 12
    ours = Expert(*(GENERATOR.normal(size=shape).astype(np.float32) for shape in ((units, 8), (units, 8), (8, units))))
    order, signs = GENERATOR.permutation(units), np.where(GENERATOR.random(units) < 0.5, -1, 1).astype(np.float32)
    theirs = ours.reordered(order, signs)
    np.testing.assert_allclose(_compute(theirs, x), _compute(ours, x), atol=1e-4)
    correlations = Correlations(units)
    for some in np.split(x, 4):
        correlations.add(_neurons(ours, some), _neurons(theirs, some))
    again = theirs.reordered(*match(correlations.values()))
    np.testing.assert_allclose(again.up, ours.up)
    np.testing.assert_allclose(average([ours, again], np.array([0.3, 0.7])).down, ours.down, rtol=1e-5)


def _neurons(expert: Expert, x: np.ndarray) -> np.ndarray:
    wide = x @ expert.gate.T
    found: np.ndarray = wide / (1 + np.exp(-wide)) * (x @ expert.up.T)
    return found


def _compute(expert: Expert, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = _neurons(expert, x) @ expert.down.T
    return found


def test_correlations_are_those_of_numpy() -> None:
    a, b = GENERATOR.normal(size=(50, 3)) + 2, GENERATOR.normal(size=(50, 3))
    b[:, 1] += a[:, 2]
    a[:, 0] = 4.0  # never changes
    correlations = Correlations(3)
    correlations.add(a[:20], b[:20])
    correlations.add(a[20:], b[20:])
    expected = np.corrcoef(a[:, 1:].T, b.T)[:2, 2:]
    np.testing.assert_allclose(correlations.values()[1:], expected, atol=1e-9)
    np.testing.assert_array_equal(correlations.values()[0], 0)


def test_a_group_costs_what_its_tokens_lose_at_most() -> None:
    g, outputs = GENERATOR.random((30, 3)) * (GENERATOR.random((30, 3)) < 0.6), GENERATOR.normal(size=(3, 30, 4))
    found, usage = squares(g, list(outputs)), g.sum(axis=0)
    for a, b in itertools.permutations(range(3), 2):
        expected = sum(g[t, a] ** 2 * np.square(outputs[a, t] - outputs[b, t]).sum() for t in range(30))
        assert found[a, b] == pytest.approx(expected)
    together = np.einsum("e,etd->td", shares(usage, [0, 1]), outputs[:2])
    lost = sum((g[:, a] ** 2 * np.square(outputs[a] - together).sum(axis=1)).sum() for a in (0, 1))
    bound = found[:2, :2].sum(axis=0) @ shares(usage, [0, 1])
    assert lost <= bound


def test_those_that_do_the_same_become_one() -> None:
    distances = np.array([[0, 9, 1, 9], [9, 0, 9, 2], [1, 9, 0, 9], [9, 2, 9, 0]], float)
    assert group(distances, np.array([1.0, 2, 3, 4]), 2) == [[2, 0], [3, 1]]
    assert group(distances, np.array([1.0, 2, 3, 4]), 3) == [[1], [2, 0], [3]]


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_an_expert_and_one_that_is_never_chosen_and_does_the_same_become_one(family: str, home: Path) -> None:
    """Its units are in another order. Gates that add up to 1 depend on the active experts alone."""
    model = made(family, home)
    ActiveExperts(active=2)(model)
    for number in range(4):
        _make_twin(model, number)
    expected, count = logits(model, FRESH), mixture_of(model, 0).count
    MergeExperts(keep=count - 1, correct=False)(model)
    assert {mixture.count for mixture in get_facts(model).experts if mixture} == {count - 1}
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-4 * np.abs(expected).max())


def _make_twin(model: ir.Model, number: int) -> None:
    """The last expert becomes the first one, and two others are always preferred to it."""
    count = mixture_of(model, number).count
    members = [
        {one.role: one for one in linears(model) if one.layer == number and one.expert == e} for e in range(count)
    ]
    order = np.random.default_rng(number).permutation(members[0]["expert.up"].matrix.dims[0])
    for role, linear in members[-1].items():
        weights = members[0][role].matrix.numpy()
        linear.replace(constant(weights[:, order] if role == "expert.down" else weights[order]))
    router, factors = routers(model)[number], [1, -1, 2, -2, 3][: count - 1]
    router.replace(constant(np.array([[*factors, 0]], np.float32).T * router.matrix.numpy()[:1]))


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_mixture_is_a_mixture(family: str, quantized: bool, home: Path, tmp_path: Path) -> None:
    model = made(family, home)
    MergeExperts(keep=4)(model)
    x, found, y = seen(model, 2, FRESH)
    expected = gates(x @ router_of(model, 2).T, mixture_of(model, 2))
    assert expected.shape[1] == 4
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(y, mix(x, experts_of(model, 2), expected), atol=1e-4)
    if quantized:
        Quantize(bits=4, block_size=32)(model)
    scores = logits(model, FRESH)
    np.testing.assert_allclose(lowered_logits(model, FRESH, tmp_path), scores, atol=1e-3 * np.abs(scores).max())


@pytest.mark.parametrize(
    ("family", "step", "message"),
    [
        ("llama", MergeExperts(keep=4), "the model is dense: no layer has a mixture of experts"),
        ("mixtral", MergeExperts(keep=1), "keep: layer 0 has 5 experts, and gives each token to 2: 1 is not between"),
        ("mixtral", MergeExperts(keep=6), "6 is not between them"),
        ("gpt_oss", MergeExperts(keep=4), "the experts of layer 0 have biases"),
    ],
)
def test_what_cannot_be_merged_is_one_line(family: str, step: Pass, message: str, home: Path) -> None:
    with pytest.raises(EdgewiseError, match=message):
        step(made(family, home))
