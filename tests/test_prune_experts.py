"""tests: mixtures with fewer experts, or fewer active ones, beside a mixture written out in NumPy."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import parity
import tiny
from canonical import calibrated, graph, logits, tokens
from edgewise.errors import EdgewiseError
from edgewise.graph import get_facts, linears
from edgewise.passes import Pass
from edgewise.tensors import constant
from edgewise.writer import write_model
from edgewise_plugins.moe.mixtures import routers
from edgewise_plugins.moe.prune import ActiveExperts, PruneExperts
from edgewise_plugins.moe.remove import remove_experts
from edgewise_plugins.quantize import Quantize
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered

FAMILIES = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"]
TEXT, FRESH = tokens(6, 48), tokens(3, 32, seed=5)

pytestmark = pytest.mark.usefixtures("cache")


def made(family: str, folder: Path) -> ir.Model:
    return calibrated(graph(tiny.checkpoint(family, folder)), TEXT)


def experts_of(model: ir.Model, layer: int) -> list[np.ndarray]:
    return [
        linear.matrix.numpy() for linear in linears(model) if linear.layer == layer and linear.role == "expert.down"
    ]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_experts_that_stay_are_numbered_anew(family: str, tmp_path: Path) -> None:
    model = made(family, tmp_path)
    before, count = experts_of(model, 1), get_facts(model).experts[1]
    assert count is not None
    left = [0, *range(2, count.count)]
    remove_experts(model, 1, left)
    after = experts_of(model, 1)
    assert [np.array_equal(a, before[b]) for a, b in zip(after, left, strict=True)] == [True] * len(left)
    numbers = {linear.expert for linear in linears(model) if linear.layer == 1 and linear.role == "expert.up"}
    assert numbers == set(range(len(left)))
    assert len(routers(model)[1].matrix.numpy()) == len(left)
    assert np.isfinite(logits(model, FRESH)).all()


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_whose_gates_are_zero_change_nothing_when_they_go(family: str, tmp_path: Path) -> None:
    """Normalized gates depend on the active experts alone."""
    model = made(family, tmp_path)
    mixture = get_facts(model).experts[0]
    assert mixture is not None
    for router in routers(model).values():
        weights = router.matrix.numpy().copy()
        weights[-1] = 0.2 * weights[0] + 0.2 * weights[1]  # never above both of them and others
        router.replace(constant(weights))
    statistics = calibrated(model, FRESH).meta["edgewise"].calibration.statistics(model).experts
    silent = {number: [i for i, count in enumerate(found.counts) if not count] for number, found in statistics.items()}
    expected = logits(model, FRESH)
    for number, gone in silent.items():
        remove_experts(model, number, [i for i in range(mixture.count) if i not in gone])
    np.testing.assert_allclose(logits(model, FRESH), expected, atol=1e-4)


@pytest.mark.parametrize("worth", ["reap", "frequency", "norm"])
@pytest.mark.parametrize("family", FAMILIES)
def test_those_that_are_worth_least_go(family: str, worth: str, tmp_path: Path) -> None:
    model = made(family, tmp_path)
    found = model.meta["edgewise"].calibration.statistics(model).experts
    kept = {}
    for number, statistics in found.items():
        scores = {"reap": statistics.saliency, "frequency": statistics.counts, "norm": statistics.norms}[worth]
        kept[number] = [experts_of(model, number)[i] for i in sorted(np.argsort(-scores, kind="stable")[:4])]
    PruneExperts(keep=4, worth=worth)(model)  # type: ignore[arg-type]
    for number, expected in kept.items():
        for ours, theirs in zip(experts_of(model, number), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert {mixture.count for mixture in get_facts(model).experts if mixture} == {4}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_token_goes_to_fewer_experts(family: str, tmp_path: Path) -> None:
    model = made(family, tmp_path)
    ActiveExperts(active=1)(model)
    assert {mixture.active for mixture in get_facts(model).experts if mixture} == {1}
    statistics = calibrated(model, FRESH).meta["edgewise"].calibration.statistics(model).experts
    assert all(found.counts.sum() == FRESH.size for found in statistics.values())


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_mixture_is_lowered_to_what_it_computes(family: str, quantized: bool, tmp_path: Path) -> None:
    model = made(family, tmp_path)
    PruneExperts(keep=4)(model)
    ActiveExperts(active=2)(model)
    if quantized:
        Quantize(bits=4, block_size=32)(model)
    expected = logits(model, FRESH)
    write_model(LowerOrt(accuracy_level=0)(model).model, tmp_path / "lowered.onnx")
    session = Lowered(parity.load(tmp_path / "lowered.onnx"), get_facts(model), 256)
    found = np.concatenate(session(list(FRESH)))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("family", "step", "message"),
    [
        ("llama", PruneExperts(keep=4), "the model is dense: no layer has a mixture of experts"),
        ("llama", ActiveExperts(active=1), "the model is dense"),
        ("mixtral", PruneExperts(keep=1), "keep: layer 0 has 5 experts, and gives each token to 2: 1 is not between"),
        ("mixtral", PruneExperts(keep=6), "6 is not between them"),
        ("mixtral", ActiveExperts(active=3), "active: 3 is not from 1 to 2, those of layer 0"),
    ],
)
def test_what_cannot_be_done_is_one_line(family: str, step: Pass, message: str, tmp_path: Path) -> None:
    with pytest.raises(EdgewiseError, match=message):
        step(made(family, tmp_path))


def test_pruning_comes_before_quantizing(tmp_path: Path) -> None:
    model = made("mixtral", tmp_path)
    Quantize(bits=8, block_size=32)(model)
    with pytest.raises(EdgewiseError, match=r"is quantized already .*prune-experts comes before"):
        PruneExperts(keep=4)(model)
