"""tests: routers that are fitted anew where experts are gone, beside finite differences and NumPy's least squares."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from canonical import calibrated, logits
from edgewise.facts import Experts
from edgewise.graph import linears
from edgewise_plugins.moe.correct import DAMPING, Seen, correct_routers
from edgewise_plugins.moe.merge import MergeExperts
from edgewise_plugins.moe.mixtures import routers
from edgewise_plugins.moe.prune import PruneExperts
from edgewise_plugins.moe.remove import remove_experts
from mixtures import TEXT, experts_of, gates, made, mix, mixture_of, router_of, seen

pytestmark = pytest.mark.usefixtures("cache")

GENERATOR = np.random.default_rng(17)


def of_family(family: str, home: Path) -> ir.Model:
    """Where its experts come in groups, in one."""
    return made(family, home, " ungrouped", n_group=1, topk_group=1) if family == "glm4_moe" else made(family, home)


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1.8])
def test_slopes_are_those_of_finite_differences(scores: Any, normalized: bool, scale: float) -> None:
    mixture = Experts(5, 3, normalized=normalized, scores=scores, scale=scale)
    rows, outputs = GENERATOR.normal(size=(7, 5)), GENERATOR.normal(size=(5, 7, 4))
    chosen = np.argsort(-rows, axis=1)[:, :3]

    def scored(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = 1 / (1 + np.exp(-rows)) if scores == "sigmoid" else np.exp(rows)
        found = found if scores == "sigmoid" else found / found.sum(axis=1, keepdims=True)
        weights = np.zeros_like(found)
        np.put_along_axis(weights, chosen, np.take_along_axis(found, chosen, axis=1), axis=1)
        total = weights.sum(axis=1, keepdims=True) if normalized else 1
        return found, scale * weights / total

    def mixed(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.einsum("te,eth->th", scored(rows)[1], outputs)
        return found

    own, weights = scored(rows)
    found = Seen(np.zeros((7, 2)), weights, own, list(outputs), np.zeros((7, 4))).slopes(mixture)
    for expert, (tokens, slopes) in enumerate(found):
        step = np.zeros_like(rows)
        step[:, expert] = 1e-5
        expected = (mixed(rows + step) - mixed(rows - step)) / 2e-5
        np.testing.assert_allclose(slopes, expected[tokens], atol=1e-8)
        assert set(tokens) == set(np.flatnonzero((chosen == expert).any(axis=1)))


def test_a_step_is_the_least_squares_fit_of_numpy(home: Path) -> None:
    model = made("mixtral", home)
    x, _, wanted = seen(model, 0, TEXT)
    before = model.clone()
    remove_experts(model, 0, [0, 2, 3])
    rows, experts, mixture = router_of(model, 0), experts_of(model, 0), mixture_of(model, 0)
    weights = gates(x @ rows.T, mixture)
    missing = wanted - mix(x, experts, weights)
    correct_routers(model, before, _calibration(model))
    for number, expert in enumerate(experts):
        own = weights[:, number] > 0
        v = weights[own, number, None] * (
            mix(x[own], [expert], np.ones((own.sum(), 1))) - mix(x[own], experts, weights[own])
        )
        lengths = np.linalg.norm(v, axis=1)
        design = lengths[:, None] * x[own]
        damping = np.sqrt(DAMPING * np.square(design).sum(axis=0).mean())
        target = np.append((v * missing[own]).sum(axis=1) / lengths, np.zeros(x.shape[1]))
        step = np.linalg.lstsq(np.concatenate([design, damping * np.eye(x.shape[1])]), target)[0]
        np.testing.assert_allclose(router_of(model, 0)[number], rows[number] + step / 2, atol=1e-4)


def _calibration(model: ir.Model) -> Any:
    return calibrated(model, TEXT).meta["edgewise"].calibration


@pytest.mark.parametrize("family", ["mixtral", "olmoe", "gpt_oss", "glm4_moe", "flex_olmo"])
def test_what_is_missing_becomes_less(family: str, home: Path) -> None:
    expected, errors = logits(of_family(family, home), TEXT), []
    for correct in (False, True):
        model = of_family(family, home)
        PruneExperts(keep=4, correct=correct)(model)
        errors.append(np.square(logits(model, TEXT) - expected).mean())
    assert errors[1] < errors[0]


def test_routers_stay_where_nothing_is_missing(home: Path) -> None:
    model = made("mixtral", home)
    before = {number: router.matrix.numpy().copy() for number, router in routers(model).items()}
    correct_routers(model, model.clone(), _calibration(model))
    for number, router in routers(model).items():
        np.testing.assert_allclose(router.matrix.numpy(), before[number], atol=1e-6)


def test_routers_of_merged_experts_are_fitted_too(home: Path) -> None:
    plain, corrected = made("mixtral", home), made("mixtral", home)
    expected = logits(plain, TEXT)
    MergeExperts(keep=3)(plain)
    MergeExperts(keep=3, correct=True)(corrected)
    errors = [np.square(logits(model, TEXT) - expected).mean() for model in (plain, corrected)]
    assert errors[1] < errors[0]
    others = [{one.name: one.matrix.numpy() for one in linears(m) if one.role != "router"} for m in (plain, corrected)]
    for name, matrix in others[0].items():
        np.testing.assert_array_equal(others[1][name], matrix)
