"""tests: quality: divergences beside the obvious formula, models beside the whole graph, what single changes cost."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from edgewise.bundle.read import Bundle
from edgewise.calibration import walk as walking
from edgewise.checkpoint import Checkpoint
from edgewise.errors import GenerationError, GraphError, OptionError
from edgewise.graph import get_facts, linears
from edgewise.passes import BuildContext
from edgewise.pipeline import build, export
from edgewise.prepare import export_graph
from edgewise.quality import divergence, scorers
from edgewise.quality.compare import compare, compared
from edgewise.quality.divergence import Divergences, Likelihoods, aligned, divergences, likelihoods
from edgewise.quality.finished import Finished
from edgewise.quality.gate import Gate
from edgewise.quality.greedy import compare_greedy, same_tokens
from edgewise.quality.layers import layer_costs
from edgewise.quality.report import Distance, distance, quality
from edgewise.quality.scorers import Lowered, scorer
from edgewise.quality.sensitivity import sensitivity
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.runner import Runner
from edgewise.steps import apply, resolve
from edgewise.tensors import Streamed, streamed
from edgewise.text.tokenizer import Tokenizer
from toy import VOCABULARY, toy

TEXT = "def add(a, b):\n    return a + b\n\n\nclass Queue:\n    def __init__(self):\n        self.items = []\n" * 8


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own for each test."""
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def tokens(pycoder: Path) -> np.ndarray:
    """Two sequences of 48 tokens."""
    return np.array(Tokenizer.load(pycoder).encode(TEXT)[:96]).reshape(2, 48)


@pytest.fixture(scope="module")
def float_bundle(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo checkpoint with its weights as they are."""
    return build(pycoder, output=tmp_path_factory.mktemp("float") / "float.edge", recipe=Recipe(), load_check=False)


def floats(pycoder: Path) -> ir.Model:
    return export_graph(Checkpoint.open(pycoder))


def quantized(model: ir.Model, **options: object) -> ir.Model:
    """A copy of a model with its weights in few bits."""
    step = RecipeStep("quantize", {"bits": 4, **options})
    return apply(model.clone(), resolve([step], where="recipe"), BuildContext(), error=OptionError)


def whole_graph(pycoder: Path, folder: Path, tokens: np.ndarray) -> np.ndarray:
    """The logits of the canonical graph, run whole by ONNX Runtime: `[n, length, vocabulary]`."""
    session = onnxruntime.InferenceSession(export(pycoder, folder), providers=["CPUExecutionProvider"])
    n, length = tokens.shape
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    feeds["position_ids"] = np.broadcast_to(np.arange(length), tokens.shape).copy()
    for layer, a in enumerate(get_facts(floats(pycoder)).attention):
        for kind in ("key", "value"):
            feeds[f"past_key_values.{layer}.{kind}"] = np.zeros((n, a.kv_heads, 0, a.head_dim), np.float32)
    return np.asarray(session.run(["logits"], feeds)[0])


def obvious(reference: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> Divergences:
    """The definitions, a position and a token at a time."""
    rows = []
    for a, b, target in zip(reference.astype(np.float64), logits.astype(np.float64), targets, strict=True):
        p, q = np.exp(a - a.max()), np.exp(b - b.max())
        p, q = p / p.sum(), q / q.sum()
        kld = sum(x * np.log(x / y) for x, y in zip(p, q, strict=True))
        rows.append((-np.log(q[target]), -np.log(p[target]), kld, float(p.argmax() == q.argmax())))
    return Divergences(*np.array(rows).T)


def random_logits(positions: int, vocabulary: int, scale: float = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(positions)
    a, b = (scale * rng.standard_normal((2, positions, vocabulary))).astype(np.float32)
    return a, b, rng.integers(0, vocabulary, positions)


def test_divergences_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "BLOCK", 7 * 40)  # 7 positions at a time
    a, b, targets = random_logits(50, 40)
    found, expected = divergences(a, b, targets), obvious(a, b, targets)
    for name in ("nll", "reference_nll", "kld", "same_top"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, err_msg=name)
    assert_allclose(likelihoods(b, targets).nll, expected.nll, rtol=1e-12)


def test_a_model_does_not_diverge_from_itself_nor_by_a_constant() -> None:
    a, _, targets = random_logits(20, 1000)
    shifted = (a.astype(np.float64) + 17).astype(np.float32)
    assert divergences(a, a, targets).kld.max() == 0
    assert divergences(a, shifted, targets).kld.max() < 1e-10


@pytest.mark.parametrize("scale", [1e-3, 1, 1e4])
def test_a_divergence_is_never_negative(scale: float) -> None:
    a, b, targets = random_logits(100, 64, scale)
    near = a * np.float32(1 + 1e-7)
    for other in (b, near):
        found = divergences(a, other, targets)
        assert np.isfinite(found.kld).all()
        assert found.kld.min() >= 0


def test_scores_that_are_not_finite_are_refused() -> None:
    a, b, targets = random_logits(3, 8)
    b[1, 2] = np.nan
    with pytest.raises(GenerationError, match="not finite"):
        divergences(a, b, targets)


@settings(deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1), st.lists(st.integers(1, 12), min_size=1), st.integers(1, 9))
def test_streams_that_are_chunked_differently_are_aligned(
    first: Sequence[int], second: Sequence[int], length: int
) -> None:
    rows = np.arange(4 * length)[:, None]
    seen, expected = [], 0
    for position, (a, b) in aligned([chunked(rows, first), chunked(rows, second)], length):
        assert position == expected
        assert_allclose(a, b)
        expected = (position + len(a)) % length
        assert position + len(a) <= length
        seen.append(a)
    assert_allclose(np.concatenate(seen), rows)


def chunked(rows: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    start, number = 0, 0
    while start < len(rows):
        size = sizes[number % len(sizes)]
        yield rows[start : start + size]
        start, number = start + size, number + 1


def test_the_figures_are_those_of_the_positions() -> None:
    a, b, targets = random_logits(400, 50)
    found = divergences(a, b, targets)
    figures = distance(found)
    assert_allclose(figures.mean_kld, sum(found.kld) / 400)
    assert_allclose(figures.mean_kld_error, np.sqrt(np.var(found.kld, ddof=1) / 400))
    assert sum(found.kld > figures.p99_kld) == 4
    assert figures.max_kld == max(found.kld)
    assert figures.top1 == np.mean(a.argmax(1) == b.argmax(1))
    whole = quality(found, length=11, text_bytes=1000)
    assert_allclose(whole.perplexity, np.prod(np.exp(found.nll) ** (1 / 400)))
    assert_allclose(whole.bits_per_byte, sum(np.log2(np.exp(found.nll))) / 1000)
    assert_allclose(whole.perplexity / figures.reference_perplexity, figures.perplexity_ratio)
    difference = found.nll - found.reference_nll
    assert_allclose(figures.perplexity_ratio_error / figures.perplexity_ratio, np.std(difference, ddof=1) / 20)


def test_a_bundle_beside_the_whole_canonical_graph(
    pycoder: Path, pycoder_bundle: Bundle, tokens: np.ndarray, tmp_path: Path
) -> None:
    reference = whole_graph(pycoder, tmp_path / "graph", tokens)
    with Runner.open(pycoder_bundle.path) as runner:
        ours = [runner.session(capacity=48).prefill(row, scores=48).copy() for row in tokens.tolist()]
    pairs = zip(reference, ours, tokens, strict=True)
    expected = distance(Divergences.join([obvious(a[:-1], b[:-1], row[1:]) for a, b, row in pairs]))
    found = compare(pycoder_bundle.path, pycoder, tokens)
    assert 0.001 < found.mean_kld < 1
    for name in ("mean_kld", "p99_kld", "max_kld", "top1", "reference_perplexity", "perplexity_ratio"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, err_msg=name)


def test_a_float_bundle_is_its_checkpoint(pycoder: Path, float_bundle: Bundle, tokens: np.ndarray) -> None:
    found = compare(float_bundle.path, pycoder, tokens)
    assert found.max_kld < 1e-6
    assert found.top1 == 1
    assert abs(found.perplexity_ratio - 1) < 1e-5


def test_chunks_change_nothing(
    pycoder: Path, pycoder_bundle: Bundle, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare(pycoder_bundle.path, pycoder, tokens)
    monkeypatch.setattr(scorers, "CHUNK_BYTES", 4 * 4096 * 47)  # the last position comes alone
    monkeypatch.setattr(scorers, "GROUP_TOKENS", 48)
    monkeypatch.setattr(walking, "LOGIT_TOKENS", 13)
    found = compare(pycoder_bundle.path, pycoder, tokens)
    assert_allclose(found.mean_kld, whole.mean_kld, rtol=1e-3)  # sums in another order flip activations in int8
    assert_allclose(found.perplexity_ratio, whole.perplexity_ratio, rtol=1e-3)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    models = Lowered(toy(tmp_path)), Lowered(toy(tmp_path, vocabulary=50))
    with pytest.raises(OptionError, match=f"vocabulary of {VOCABULARY} tokens, and .* has 50"):
        list(compared(*models, np.zeros((1, 4), np.int64)))


@pytest.mark.parametrize("shape", [(0, 8), (3, 1)])
def test_nothing_to_measure_on_is_refused(shape: tuple[int, int], tmp_path: Path) -> None:
    model = Lowered(toy(tmp_path))
    with pytest.raises(OptionError, match="no tokens to measure the model on"):
        list(compared(model, model, np.zeros(shape, np.int64)))


def test_sequences_longer_than_the_context_are_refused(pycoder: Path, pycoder_bundle: Bundle) -> None:
    for source in (pycoder, pycoder_bundle.path):
        with pytest.raises(OptionError, match="1,025 tokens do not fit into the model's context of 1,024"):
            compare(source, source, np.zeros((1, 1025), np.int64))


def test_greedy_texts_differ_where_those_of_two_runners_do(
    pycoder_bundle: Bundle, float_bundle: Bundle, tokens: np.ndarray
) -> None:
    texts = []
    for bundle in (pycoder_bundle, float_bundle):
        with Runner.open(bundle.path) as runner:
            texts.append([runner.generate(row[:32], max_tokens=64, search="greedy").tokens for row in tokens.tolist()])
    models = [scorer(bundle.path, length=48) for bundle in (pycoder_bundle, float_bundle)]
    assert isinstance(models[0], Lowered)
    found = compare_greedy(models[0], models[1], tokens)
    assert found
    for same, ours, theirs in zip(found.same, *texts, strict=True):
        assert ours[:same] == theirs[:same]
        assert ours == theirs if same == found.tokens else ours[: same + 1] != theirs[: same + 1]
    assert isinstance(models[1], Lowered)
    assert compare_greedy(models[1], models[1], tokens) == type(found)(64, (64, 64))


def test_texts_that_both_end_do_not_differ_after_that() -> None:
    ours, theirs = np.array([5, 6, 0, 8]), np.array([5, 6, 0, 9])
    assert same_tokens(ours, theirs, eos=(0,)) == 4
    assert same_tokens(ours, theirs, eos=(9,)) == 3
    assert same_tokens(np.array([5, 0]), np.array([6, 0]), eos=(0,)) == 0


def test_what_a_change_costs_alone_is_what_the_changed_model_costs(pycoder: Path, tokens: np.ndarray) -> None:
    model = floats(pycoder)
    few = quantized(model, bits=2)
    names = [linear.name for linear in linears(model)]
    chosen = [names[0], next(name for name in names if "layers.3.mlp.down" in name)]  # the first is tied
    changes = {name: {name: streamed(few.graph.initializers[name].const_value)} for name in chosen}
    before = {name: value.const_value for name, value in model.graph.initializers.items()}
    found = sensitivity(model, changes, tokens)
    assert {name: value.const_value for name, value in model.graph.initializers.items()} == before
    for name in chosen:
        changed = model.clone()
        changed.graph.initializers[name].const_value = few.graph.initializers[name].const_value
        assert_allclose(found[name], compare(changed, model, tokens).mean_kld, rtol=1e-6)


def test_a_change_of_what_is_not_there_is_refused(pycoder: Path, tokens: np.ndarray) -> None:
    model = floats(pycoder)
    norm, zeros = "model.norm.weight", Streamed((3,), ir.DataType.FLOAT, lambda a, b: np.zeros(b - a, np.float32))
    with pytest.raises(GraphError, match="no weight 'wheel' to change"):
        sensitivity(model, {"x": {"wheel": zeros}}, tokens)
    with pytest.raises(GraphError, match=rf"'{norm}' has the shape \[256\]; its change has \[3\]"):
        sensitivity(model, {"x": {norm: zeros}}, tokens)


def test_the_layer_that_is_hurt_is_found(pycoder: Path, tokens: np.ndarray) -> None:
    model = floats(pycoder)
    rules = [{"layers": "2", "bits": 2}, {"role": "embedding", "keep": True}]
    hurt = quantized(model, bits=8, rules=rules)
    costs = layer_costs(model, hurt, tokens)
    assert next(iter(costs)) == "layer 2"
    assert set(costs) == {f"layer {layer}" for layer in range(6)}
    assert costs["layer 2"] > 10 * list(costs.values())[1]
    assert_allclose(sum(costs.values()), compare(hurt, model, tokens).mean_kld, rtol=0.2)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"max_mean_kld": 0.04}, "mean KL divergence is 0.05, and 0.04 is the most that the gate allows"),
        ({"max_p99_kld": 0.1}, "p99 of the KL divergence is 0.3, and 0.1 is the most that the gate allows"),
        ({"min_top1": 0.95}, "top-1 agreement is 0.9, and 0.95 is the least that the gate allows"),
        ({"max_perplexity_ratio": 1.01}, "perplexity ratio is 1.02, and 1.01 is the most that the gate allows"),
        ({"max_mean_kld": 0.05, "max_p99_kld": 0.3, "min_top1": 0.9, "max_perplexity_ratio": 1.02}, None),
    ],
)
def test_a_gate_says_what_is_not_good_enough(limits: dict[str, float], says: str | None) -> None:
    found = Distance(
        mean_kld=0.05,
        mean_kld_error=0.001,
        p99_kld=0.3,
        max_kld=2.0,
        top1=0.9,
        reference_perplexity=10.0,
        perplexity_ratio=1.02,
        perplexity_ratio_error=0.01,
    )
    assert Gate(**limits).failures(found) == ([] if says is None else [says])


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({}, "it sets no limit"),
        ({"max_mean_kld": -0.1}, "max_mean_kld is -0.1"),
        ({"max_mean_kld": float("nan")}, "max_mean_kld is nan"),
        ({"max_perplexity_ratio": float("inf")}, "max_perplexity_ratio is inf"),
        ({"min_top1": 90.0}, "min_top1 is 90; it is a share"),
    ],
)
def test_a_gate_that_means_nothing_is_refused(limits: dict[str, float], says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Gate(**limits)


def test_what_a_kill_left_half_written_is_measured_again(tmp_path: Path) -> None:
    rows = [Divergences(*np.random.default_rng(i).random((4, 6))) for i in range(3)]
    finished = Finished(tmp_path, Divergences, 6)
    for row in rows:
        finished.add(row)
    content = finished.path.read_bytes()
    for cut, left in ((content[:-1], 2), (content[: len(content) // 3 + 1], 1), (b"x" + content[1:], 0), (content, 3)):
        finished.path.write_bytes(cut)
        found = Finished(tmp_path, Divergences, 6).found
        assert len(found) == left
        for read, row in zip(found, rows, strict=False):
            assert np.array_equal(read.nll, row.nll)
            assert np.array_equal(read.same_top, row.same_top)


def test_records_of_another_kind_are_not_taken(tmp_path: Path) -> None:
    Finished(tmp_path, Likelihoods, 24).add(Likelihoods(np.zeros(24)))
    assert len(Finished(tmp_path, Likelihoods, 24).found) == 1
    assert Finished(tmp_path, Likelihoods, 6).found == []
