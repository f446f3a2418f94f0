"""tests: students that learn: in every way that there is, killed on the way, and from what cannot be learned from."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import tiny
from canonical import calibrated, graph, logits, tokens
from edgewise.errors import EdgewiseError, GraphError, MissingExtra, OptionError
from edgewise.graph import layer_matrices, linears, remarks
from edgewise.passes import Pass, context_of
from edgewise.tensors import constant, streamed
from edgewise.writer import Progress
from edgewise_plugins.distill import train
from edgewise_plugins.distill.cost import costs
from edgewise_plugins.distill.executor import Executor
from edgewise_plugins.distill.learn import LESS, Distill, refuse_what_does_not_fit
from edgewise_plugins.distill.losses import distributions, forward_kl
from edgewise_plugins.distill.objective import depths
from edgewise_plugins.distill.plan import Training
from edgewise_plugins.distill.teachers import Present
from edgewise_plugins.distill.train import FILE, Run
from edgewise_plugins.distill.work import learn, less_than_needed, rewrite
from edgewise_plugins.prune.depth import PruneLayers, remove_layers
from edgewise_plugins.prune.width import PruneWidth
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.sparse.sparsify import Sparsify

TEXT = tokens(24, 32)
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


def test_rates_rise_and_fall() -> None:
    plan = Training(steps=100, warmup=0.1, rate=1.0)
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-2)


def distance(model: ir.Model, expected: np.ndarray) -> float:
    """The mean KL divergence from scores on the text."""
    q, p = distributions(torch.from_numpy(logits(model, TEXT)), torch.from_numpy(expected), 1.0)
    return float(forward_kl(q, p, 1.0))


WAYS = {
    "scores": SHORT,
    "all at once": dataclasses.replace(SHORT, hidden=1.0, cross_entropy=0.1, accumulate=2),
    "blocks": dataclasses.replace(SHORT, objective="blocks"),
    "kept scores": dataclasses.replace(SHORT, top=20),
    "in bfloat16": dataclasses.replace(SHORT, precision="bfloat16"),
    "own text": dataclasses.replace(SHORT, sampled=0.5, objective="jensen_shannon"),
}


@pytest.mark.parametrize("way", WAYS)
def test_what_pruning_lost_is_learned_again(way: str, tmp_path: Path) -> None:
    model = made(tmp_path)
    expected = logits(model, TEXT)
    PruneWidth(keep=0.25, multiple=8, refit=False)(model)
    before = distance(model, expected)
    Distill(training=WAYS[way])(model)
    assert distance(model, expected) < before


def test_a_student_with_fewer_layers_learns_from_all_of_its_teachers(tmp_path: Path) -> None:
    model = made(tmp_path)
    expected = logits(model, TEXT)
    PruneLayers(keep=2)(model)
    before = distance(model, expected)
    Distill(training=dataclasses.replace(SHORT, hidden=0.5))(model)
    assert distance(model, expected) < before


@pytest.mark.parametrize("rounded", [(), (Quantize(bits=4, block_size=32, method="nearest"),)], ids=["float", "int4"])
def test_weights_that_were_pruned_one_by_one_stay_zero(rounded: tuple[Pass, ...], tmp_path: Path) -> None:
    model = made(tmp_path)
    Sparsify(method="magnitude", sparsity=0.15)(model)
    for step in rounded:
        step(model)
    before = {linear.name: linear.matrix.numpy() for linear in layer_matrices(model)}
    Distill(training=dataclasses.replace(SHORT, rate=2e-4))(model)
    for linear in layer_matrices(model):
        weights, learned = before[linear.name], linear.matrix.numpy()
        assert (weights == 0).mean() > 0.14
        assert (learned[weights == 0] == 0).all()
        assert (learned != weights).any()


def test_zeros_that_nobody_pruned_learn(tmp_path: Path) -> None:
    model = made(tmp_path)
    up = next(linear for linear in linears(model) if linear.role == "mlp.up")
    weights = up.matrix.numpy().copy()
    weights[np.abs(weights) < np.median(np.abs(weights))] = 0
    up.replace(constant(weights))
    Distill(training=dataclasses.replace(SHORT, rate=2e-4))(model)
    assert (up.matrix.numpy()[weights == 0] != 0).any()


def test_a_card_says_how_many_drafts_of_a_student_its_teacher_accepts(tmp_path: Path) -> None:
    model = made(tmp_path)
    PruneWidth(keep=0.25, multiple=8, refit=False)(model)
    Distill(training=dataclasses.replace(SHORT, held_out=0.99, steps=1, evaluate=1))(model)
    (said,) = remarks(model)
    teacher = context_of(model).reference
    assert teacher
    held_out = np.random.default_rng(0).permutation(len(TEXT))[: len(TEXT) - 1]
    p, q = (scores(each)[held_out] for each in (teacher, model))
    drawn, likeliest = np.minimum(p, q).sum(axis=-1).mean(), (p.argmax(axis=-1) == q.argmax(axis=-1)).mean()
    assert f"{likeliest:.1%} of the most likely tokens are accepted, and {drawn:.1%} of drawn ones" in said


def scores(model: ir.Model) -> np.ndarray:
    """Probabilities of the tokens after each of the text, `[sequences, length, vocabulary]`."""
    powers = np.exp(logits(model, TEXT).astype(np.float64)).reshape(*TEXT.shape, -1)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def test_a_layer_stands_for_those_after_it_that_are_gone(tmp_path: Path) -> None:
    model = made(tmp_path)
    teacher = Executor(model.clone())
    remove_layers(model, [0, 2])
    assert depths(Executor(model), teacher) == [0, 3, 4]


def test_a_teacher_writes_a_text_of_its_own(tmp_path: Path) -> None:
    teacher = graph(tiny.checkpoint("llama", tmp_path))
    text = rewrite(teacher, TEXT, SHORT, prompt=8, progress=None)
    assert text.shape == TEXT.shape
    assert (text[:, :8] == TEXT[:, :8]).all()
    executor = Executor(teacher)
    with torch.no_grad():
        chances = executor(torch.from_numpy(text))["logits"].softmax(dim=-1)
    said = chances[:, 7:-1].gather(-1, torch.from_numpy(text[:, 8:, None]))
    assert float(said.log().mean()) > float(chances[:, 7:-1].log().mean()) + 1  # not any text: one of its own


def test_what_a_teacher_wrote_is_read_again(tmp_path: Path) -> None:
    teacher, stages = graph(tiny.checkpoint("llama", tmp_path)), []
    for _ in range(2):
        rewrite(teacher, TEXT, SHORT, prompt=8, progress=lambda stage, done, total: stages.append((done, total)))
    assert stages == [(16, 24), (24, 24)]


class Killed(Exception):
    pass


LONG = ("scores", "blocks", "kept scores")  # of the others, one draws, and one has all else


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.slow if way in LONG else ()) for way in WAYS if way != "in bfloat16"],
)
def test_a_run_that_was_killed_ends_with_the_same_bits(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """The state is kept after every step here; the process ends, as far as the run can tell, in the seventh."""
    monkeypatch.setattr(train, "EVERY_S", -1.0)
    teacher = graph(tiny.checkpoint("llama", tmp_path))
    pruned = calibrated(teacher.clone(), TEXT)
    PruneWidth(keep=0.5, multiple=8)(pruned)

    def kill(stage: str, done: int, total: int) -> None:
        if stage.startswith("distill") and done == 8:
            raise KeyboardInterrupt

    def trained(progress: Progress | None) -> dict[str, np.ndarray]:
        model = pruned.clone()
        learn(model, teacher, TEXT, WAYS[way], what="weights", progress=progress)
        return {name: streamed(value.const_value).numpy() for name, value in model.graph.initializers.items()}

    with pytest.raises(KeyboardInterrupt):
        trained(kill)
    assert list(cache.rglob(FILE))
    steps: list[int] = []
    resumed = trained(lambda stage, done, total: steps.append(done) if stage.startswith("distill") else None)
    assert steps[0] == 8
    for name, array in trained(None).items():
        assert np.array_equal(array, resumed[name]), name


def test_a_student_that_learns_nothing_more_stops_early(tmp_path: Path) -> None:
    teacher = graph(tiny.checkpoint("llama", tmp_path))
    training = dataclasses.replace(SHORT, steps=1000, rate=10.0, evaluate=1, patience=2)
    executor = Executor(teacher)
    found = Run(Executor(teacher), Present(executor), TEXT, training, tmp_path, depths(executor, executor))
    best = found.train()
    assert found.step < 1000
    assert found.held_out_kld() == pytest.approx(best)


def test_what_learning_takes_is_in_the_plan(tmp_path: Path) -> None:
    model = made(tmp_path)
    context, calibration = context_of(model), context_of(model).calibration
    assert calibration
    model.meta["edgewise"] = dataclasses.replace(context, dry=True)
    Distill(training=SHORT)(model)
    Distill(training=dataclasses.replace(SHORT, top=20), prompt=4)(model)
    present, writes, asked, kept = calibration.costs
    assert kept.flops < present.flops
    assert min(writes.disk, asked.disk, present.disk, present.memory) > 0


def test_what_does_not_fit_is_refused_before_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(tmp_path)
    monkeypatch.setattr("edgewise.calibration.plan.available_memory", lambda: 1 << 20)
    with pytest.raises(OptionError, match="GB are available; a smaller batch"):
        Distill()(model)


def test_what_does_not_fit_on_a_gpu_is_refused_by_its_shapes(tmp_path: Path) -> None:
    student, teacher = graph(tiny.checkpoint("llama", tmp_path)), graph(tiny.checkpoint("llama", tmp_path))
    small, large = (
        costs(student, teacher, (64, 128), dataclasses.replace(SHORT, batch=batch), prompt=0, what="weights")
        for batch in (1, 64)
    )
    gpu = small["distill"].memory
    refuse_what_does_not_fit(small, gpu)
    with pytest.raises(OptionError, match=r"of the GPU's memory, and .* GB are free; a smaller batch"):
        refuse_what_does_not_fit(large, gpu)


def test_a_gpu_that_runs_out_of_memory_is_one_line() -> None:
    with pytest.raises(OptionError, match="the GPU's memory does not suffice; a smaller batch"), less_than_needed(LESS):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the allocated memory")


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"edgewise\[distill\]"):
        Distill()(model)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_pass_learns(tmp_path: Path) -> None:
    model = made(tmp_path)
    expected = logits(model, TEXT)
    PruneWidth(keep=0.25, multiple=8, refit=False)(model)
    before = distance(model, expected)
    Distill(prompt=8, training=dataclasses.replace(SHORT, sampled=0.5))(model)
    assert distance(model, expected) < before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: 0 is not 1 or more"),
        ({"temperature": 0.0}, "temperature: 0.0 is no number above 0"),
        ({"rate": float("inf")}, "rate: inf is no number above 0"),
        ({"hidden": -1.0}, "hidden: -1.0 is no number from 0 on"),
        ({"held_out": 1.0}, "held_out .1.0. of the text"),
        ({"sampled": 1.5}, "sampled: 1.5 is no share"),
        ({"sampled": 0.5, "objective": "blocks"}, "teaches it nothing by the objective 'blocks'"),
        ({"sampled": 0.5, "top": 4}, "give one"),
        ({"hidden": 0.5, "top": 4}, "hidden states need the teacher"),
        ({"objective": "blocks", "top": 4}, "hidden states need the teacher"),
    ],
)
def test_plans_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Training(**options)


def other_vocabulary(model: ir.Model, folder: Path) -> None:
    reference = graph(tiny.checkpoint("llama", folder / "other", vocab_size=96))
    model.meta["edgewise"] = dataclasses.replace(context_of(model), reference=reference)


def other_width(model: ir.Model, folder: Path) -> None:
    reference = graph(tiny.checkpoint("llama", folder / "other", hidden_size=32))
    model.meta["edgewise"] = dataclasses.replace(context_of(model), reference=reference)


def no_teacher(model: ir.Model, folder: Path) -> None:
    model.meta["edgewise"] = dataclasses.replace(context_of(model), reference=None)


def nothing(model: ir.Model, folder: Path) -> None:
    (folder / "empty.txt").write_text("")


@pytest.mark.parametrize(
    ("spoil", "step", "message"),
    [
        (other_vocabulary, Distill(), "the student has a vocabulary of 160, its teacher of 96"),
        (other_width, Distill(training=Training(hidden=1.0)), "hidden states of 64 .* of 32"),
        (other_width, Distill(training=Training(objective="blocks")), "hidden states of 64 .* of 32"),
        (no_teacher, Distill(), "pass 'distill' has no teacher"),
        (nothing, Distill(text="nowhere.txt"), "text nowhere.txt does not exist"),
        (nothing, Distill(text="empty.txt"), "text empty.txt has 0 tokens"),
        (nothing, Distill(learn="scales"), "nothing is quantized yet"),
        (nothing, Distill(prompt=32), "leave nothing to write in sequences of 32"),
        (nothing, Distill(training=Training(top=160)), "not below the vocabulary of 160"),
    ],
)
def test_what_cannot_be_distilled_is_one_line(
    spoil: Callable[[ir.Model, Path], None],
    step: Pass,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # and back
    model = made(tmp_path)
    spoil(model, tmp_path)
    with pytest.raises(EdgewiseError, match=message) as caught:
        step(model)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, GraphError | OptionError)
