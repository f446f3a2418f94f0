"""tests: experts with small gates are skipped, beside gates and mixtures written out in NumPy."""

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from canonical import calibrated, graph, logits
from edgewise.errors import EdgewiseError
from edgewise.graph import Roles, get_facts
from edgewise.passes import Pass
from edgewise.quality.sensitivity import sensitivity
from edgewise.tensors import streamed
from edgewise_plugins.distill.executor import Executor
from edgewise_plugins.moe.kept import skip_below, threshold_name
from edgewise_plugins.moe.prune import ActiveExperts
from edgewise_plugins.moe.skip import SkipExperts
from edgewise_plugins.moe.thresholds import Candidate, choose, keep_to
from edgewise_plugins.quantize import Quantize
from mixtures import FAMILIES, FRESH, TEXT, experts_of, gates, lowered_logits, made, mix, mixture_of, router_of, seen
from tiny import checkpoint

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("family", FAMILIES)
def test_gates_below_a_share_of_the_largest_are_zero_and_the_rest_is_a_mixture(family: str, home: Path) -> None:
    model = made(family, home)
    SkipExperts(threshold=0.6)(model)
    x, found, y = seen(model, 1, FRESH)
    expected = gates(x @ router_of(model, 1).T, mixture_of(model, 1), 0.6)
    least, most = 1, mixture_of(model, 1).active
    assert {least, most} <= set((expected > 0).sum(axis=1))
    np.testing.assert_array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(y, mix(x, experts_of(model, 1), expected), atol=1e-4)


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("family", [*FAMILIES, "glm4_moe", "gpt_oss"])
def test_operators_of_experts_skip_the_same(family: str, quantized: bool, home: Path, tmp_path: Path) -> None:
    model = made(family, home)
    plain = logits(model, FRESH)
    SkipExperts(threshold=0.6)(model)
    if quantized:
        Quantize(bits=4, block_size=32)(model)
    expected = logits(model, FRESH)
    assert np.abs(expected - plain).max() > 0.01 * np.abs(plain).max()
    found = lowered_logits(model, FRESH, tmp_path)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_what_skips_can_learn(home: Path) -> None:
    model = made("mixtral", home)
    SkipExperts(threshold=0.6)(model)
    found = Executor(model)(torch.tensor(FRESH))["logits"].detach().numpy()
    expected = logits(model, FRESH)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=1e-4 * np.abs(expected).max())


def test_a_threshold_of_zero_skips_nothing(home: Path) -> None:
    model = made("mixtral", home)
    expected = logits(model, FRESH)
    skip_below(model, {0: 0.0, 3: 0.0})
    np.testing.assert_array_equal(logits(model, FRESH), expected)


@pytest.mark.parametrize("family", ["mixtral", "olmoe"])
def test_what_is_stated_is_how_many_experts_a_token_is_given_to(family: str, home: Path) -> None:
    model = made(family, home)
    SkipExperts(threshold=0.5)(model)
    statistics = calibrated(model, TEXT).meta["edgewise"].calibration.statistics(model).experts
    for layer, found in statistics.items():
        assert mixture_of(model, layer).evaluated == pytest.approx(found.counts.sum() / found.tokens)
    stated = [mixture.evaluated for mixture in get_facts(model).experts if mixture]
    assert get_facts(model).active_experts == pytest.approx(sum(filter(None, stated)) / mixture_of(model, 0).count / 4)


@pytest.mark.parametrize("bound", [pytest.param(0.002, marks=pytest.mark.slow), 0.05])
def test_thresholds_keep_to_a_bound_and_use_it(bound: float, home: Path) -> None:
    model = made("mixtral", home)
    SkipExperts(max_mean_kld=bound)(model)
    roles = Roles.of(model)
    names = [threshold_name(roles, number) for number in range(4)]
    found = {name: streamed(model.graph.initializers[name].const_value) for name in names}
    before = made("mixtral", home)
    skip_below(before, dict.fromkeys(range(4), 0.0))
    (divergence,) = sensitivity(before, {"": found}, TEXT).values()
    assert bound / 4 < divergence <= bound
    assert any(tensor.numpy()[0] > 0 for tensor in found.values())


def test_a_bound_that_nothing_keeps_to_is_a_warning(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = made("mixtral", home)
    with caplog.at_level(logging.WARNING):
        SkipExperts(max_mean_kld=1e-9)(model)
    assert "nothing is skipped: no threshold keeps to max_mean_kld = 1e-09" in caplog.messages[0]
    assert mixture_of(model, 0).evaluated == 2


def test_thresholds_are_within_a_step_of_the_best_that_there_are() -> None:
    generator = np.random.default_rng(3)
    layers = {
        n: [Candidate(0.1 * i, *(float(part) for part in pair)) for i, pair in enumerate(_curve(generator))]
        for n in range(4)
    }
    for allowed in (0.02, 0.1, 0.3):
        found = choose(allowed, layers).values()
        assert sum(candidate.loss for candidate in found) <= allowed
        every = itertools.product(*layers.values())
        best = max(
            sum(candidate.saved for candidate in some) for some in every if sum(each.loss for each in some) <= allowed
        )
        assert sum(candidate.saved for candidate in found) >= best - 0.15


def _curve(generator: np.random.Generator) -> np.ndarray:
    """What is saved, and lost, at rising thresholds, from nothing on: `[thresholds, 2]`."""
    steps = generator.random((5, 2)) * [0.2, 0.05]
    return np.concatenate([np.zeros((1, 2)), np.sort(steps, axis=0).cumsum(axis=0)])


def test_losses_that_do_not_add_up_are_found_by_measuring() -> None:
    candidates = {n: [Candidate(t, t, t * t) for t in np.linspace(0, 0.9, 10)] for n in range(3)}

    def measured(thresholds: dict[int, float]) -> float:
        return 3 * sum(value**2 for value in thresholds.values())

    thresholds, divergence = keep_to(0.3, candidates, measured)
    assert divergence == pytest.approx(measured(thresholds))
    assert 0.15 < divergence <= 0.3


@pytest.mark.parametrize(
    ("family", "steps", "message"),
    [
        ("llama", [SkipExperts(threshold=0.5)], "the model is dense: no layer has a mixture of experts"),
        ("mixtral", [ActiveExperts(active=1), SkipExperts(threshold=0.5)], "each token to one expert: there is none"),
        ("mixtral", [SkipExperts(threshold=0.5), SkipExperts(threshold=0.5)], "layer 0 skips experts already"),
    ],
)
def test_what_cannot_be_skipped_is_one_line(family: str, steps: list[Pass], message: str, home: Path) -> None:
    model = made(family, home)
    for step in steps[:-1]:
        step(model)
    with pytest.raises(EdgewiseError, match=message):
        steps[-1](model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "skipping needs one of max_mean_kld, threshold"),
        ({"threshold": 0.5, "max_mean_kld": 0.1}, "skipping needs one of"),
        ({"threshold": 1.0}, "threshold: 1.0 is not between 0 and 1"),
        ({"max_mean_kld": 0.0}, "max_mean_kld: 0.0 is not more than 0"),
    ],
)
def test_options_are_held_to_sense(options: dict[str, float], message: str) -> None:
    with pytest.raises(EdgewiseError, match=message):
        SkipExperts(**options)


def test_a_bound_needs_a_text(tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=r"max_mean_kld of pass 'skip-experts' needs a calibration text"):
        SkipExperts(max_mean_kld=0.02)(graph(checkpoint("mixtral", tmp_path)))
