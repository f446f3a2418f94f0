"""tests: students that learn: losses by their formulas, runs that are killed and go on, what a recipe does with it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

import tiny
from canonical import calibrated, graph, logits, tokens
from edgewise.errors import EdgewiseError, GraphError, OptionError
from edgewise.passes import Pass, context_of
from edgewise_plugins.distill.executor import Executor
from edgewise_plugins.distill.learn import Distill
from edgewise_plugins.distill.losses import LOSSES, cross_entropy
from edgewise_plugins.distill.plan import Training
from edgewise_plugins.distill.train import FILE, Run
from edgewise_plugins.prune.depth import PruneLayers
from edgewise_plugins.prune.width import PruneWidth
from edgewise_plugins.quantize import Quantize

TEXT, FRESH = tokens(24, 32), tokens(4, 32, seed=9)
SHORT = Training(steps=12, batch=4, evaluate=4, rate=2e-3)

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Matrices this small take longer on two."""
    torch.set_num_threads(1)


def made(folder: Path, *, family: str = "llama") -> ir.Model:
    """As a build hands it to a pass."""
    model = graph(tiny.checkpoint(family, folder))
    reference = model.clone()
    calibrated(model, TEXT)
    model.meta["edgewise"] = dataclasses.replace(context_of(model), reference=reference)
    return model


def distributions(scores: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp((scores - scores.max(axis=-1, keepdims=True)) / temperature)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum(axis=-1).mean())


FORMULAS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jensen_shannon": lambda p, q: 0.5 * kl(p, (p + q) / 2) + 0.5 * kl(q, (p + q) / 2),
}


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_are_their_formulas(name: str, temperature: float) -> None:
    student, teacher = np.random.default_rng(0).normal(size=(2, 3, 5, 11))
    p, q = distributions(teacher, temperature), distributions(student, temperature)
    found = LOSSES[name](torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    assert float(found) == pytest.approx(temperature**2 * FORMULAS[name](p, q))


def test_cross_entropy_is_that_of_the_next_token() -> None:
    scores, following = np.random.default_rng(0).normal(size=(2, 4, 7)), np.array([[1, 2, 3, 4], [6, 0, 5, 1]])
    q = distributions(scores, 1.0)
    expected = -np.mean([np.log(q[s, i, following[s, i + 1]]) for s in range(2) for i in range(3)])
    assert float(cross_entropy(torch.from_numpy(scores), torch.from_numpy(following))) == pytest.approx(expected)


def test_rates_rise_and_fall() -> None:
    plan = Training(steps=100, warmup=0.1, rate=1.0)
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-2)


@pytest.mark.parametrize("training", [SHORT, dataclasses.replace(SHORT, hidden=1.0, cross_entropy=0.1, accumulate=2)])
def test_what_pruning_lost_is_learned_again(training: Training, tmp_path: Path) -> None:
    model = made(tmp_path)
    expected = logits(model, FRESH)
    PruneWidth(keep=0.25, multiple=8, refit=False)(model)
    before = np.square(logits(model, FRESH) - expected).mean()
    Distill(training=training)(model)
    assert np.square(logits(model, FRESH) - expected).mean() < before


def test_a_student_with_fewer_layers_learns_from_all_of_its_teachers(tmp_path: Path) -> None:
    model = made(tmp_path)
    expected = logits(model, FRESH)
    PruneLayers(keep=2)(model)
    before = np.square(logits(model, FRESH) - expected).mean()
    Distill(training=dataclasses.replace(SHORT, hidden=0.5))(model)
    assert np.square(logits(model, FRESH) - expected).mean() < before


def run(folder: Path, training: Training) -> tuple[Run, ir.Model]:
    teacher = graph(tiny.checkpoint("llama", folder / "checkpoint"))
    model = calibrated(teacher.clone(), TEXT)
    PruneWidth(keep=0.5, multiple=8)(model)
    return Run(Executor(model), Executor(teacher), TEXT, training, folder), model


def test_a_run_that_was_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole", SHORT)
    whole.train()

    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int) -> None:
        if done == 7:
            broken.keep()
            raise Killed

    broken, _ = run(tmp_path / "broken", SHORT)
    broken.progress = kill
    with pytest.raises(Killed):
        broken.train()
    resumed, _ = run(tmp_path / "broken", SHORT)
    resumed.train()
    assert (tmp_path / "broken" / FILE).exists()
    assert resumed.step == whole.step
    for name, parameter in whole.student.weights():
        assert torch.equal(parameter, resumed.parameters[name]), name


def test_a_student_that_learns_nothing_more_stops_early(tmp_path: Path) -> None:
    found, _ = run(tmp_path, dataclasses.replace(SHORT, steps=1000, rate=10.0, evaluate=1, patience=2))
    best = found.train()
    assert found.step < 1000
    assert found.held_out_kld() == pytest.approx(best)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: 0 is not 1 or more"),
        ({"temperature": 0.0}, "temperature: 0.0 is not above 0"),
        ({"hidden": -1.0}, "hidden: -1.0 is below 0"),
        ({"held_out": 1.0}, "held_out .1.0. of the text"),
    ],
)
def test_plans_that_make_no_sense_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Training(**options)  # type: ignore[arg-type]


def other_vocabulary(model: ir.Model, folder: Path) -> None:
    reference = graph(tiny.checkpoint("llama", folder / "other", vocab_size=96))
    model.meta["edgewise"] = dataclasses.replace(context_of(model), reference=reference)


def quantized(model: ir.Model, folder: Path) -> None:
    Quantize(bits=8, block_size=32)(model)


def no_teacher(model: ir.Model, folder: Path) -> None:
    model.meta["edgewise"] = dataclasses.replace(context_of(model), reference=None)


@pytest.mark.parametrize(
    ("spoil", "step", "message"),
    [
        (other_vocabulary, Distill(), "the student has a vocabulary of 160, its teacher of 96"),
        (quantized, Distill(), "is quantized already .*: 'distill' comes before"),
        (no_teacher, Distill(), "pass 'distill' has no teacher"),
        (None, Distill(text="nowhere.txt"), "text nowhere.txt does not exist"),
    ],
)
def test_what_cannot_be_distilled_is_one_line(
    spoil: Callable[[ir.Model, Path], None] | None, step: Pass, message: str, tmp_path: Path
) -> None:
    model = made(tmp_path)
    if spoil:
        spoil(model, tmp_path)
    with pytest.raises(EdgewiseError, match=message) as caught:
        step(model)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, GraphError | OptionError)
