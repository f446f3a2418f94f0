"""tests: quality: models beside the whole graph, in chunks, beside each other; greedy texts; what is refused."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.testing import assert_allclose

import tiny
from cases import CASES
from edgewise.bundle.read import Bundle
from edgewise.calibration import walk as walking
from edgewise.checkpoint import Checkpoint
from edgewise.errors import OptionError
from edgewise.exporters import export_graph
from edgewise.exporting import export
from edgewise.graph import get_facts
from edgewise.pipeline import build
from edgewise.quality import scorers
from edgewise.quality.compare import compare, compared
from edgewise.quality.divergence import Divergences
from edgewise.quality.greedy import compare_greedy
from edgewise.quality.report import distance
from edgewise.quality.scorers import Lowered, scorer
from edgewise.recipe import Recipe
from edgewise.runtime.runner import Runner
from edgewise.text.tokenizer import Tokenizer
from test_divergence import obvious
from toy import VOCABULARY, toy

TEXT = "def add(a, b):\n    return a + b\n\n\nclass Queue:\n    def __init__(self):\n        self.items = []\n" * 8


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def tokens(pycoder: Path) -> np.ndarray:
    """Two sequences of 48 tokens."""
    return np.array(Tokenizer.load(pycoder).encode(TEXT)[:96]).reshape(2, 48)


@pytest.fixture(scope="module")
def float_bundle(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo checkpoint with its weights as they are."""
    return build(pycoder, output=tmp_path_factory.mktemp("float") / "float.edge", recipe=Recipe(), load_check=False)


def whole_graph(pycoder: Path, folder: Path, tokens: np.ndarray) -> np.ndarray:
    """The logits of the canonical graph, run whole by ONNX Runtime: `[n, length, vocabulary]`."""
    session = onnxruntime.InferenceSession(export(pycoder, folder), providers=["CPUExecutionProvider"])
    n, length = tokens.shape
    feeds = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    feeds["position_ids"] = np.broadcast_to(np.arange(length), tokens.shape).copy()
    for layer, a in enumerate(get_facts(export_graph(Checkpoint.open(pycoder))).attention):
        for kind in ("key", "value"):
            feeds[f"past_key_values.{layer}.{kind}"] = np.zeros((n, a.kv_heads, 0, a.head_dim), np.float32)
    return np.asarray(session.run(["logits"], feeds)[0])


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
    for name in ("mean_kld", "p99_kld", "max_kld", "top1", "overlap", "reference_perplexity", "perplexity_ratio"):
        assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-4, err_msg=name)


def test_a_float_bundle_is_its_checkpoint(pycoder: Path, float_bundle: Bundle, tokens: np.ndarray) -> None:
    found = compare(float_bundle.path, pycoder, tokens)
    assert found.max_kld < 1e-6
    assert found.top1 == 1
    assert abs(found.perplexity_ratio - 1) < 1e-5


@pytest.mark.parametrize(
    "name", ["gemma2", "gemma3", "llama dynamic", "phi3 longrope", "qwen2", "qwen3 yarn", "smollm3 window"]
)
def test_float_bundles_of_every_kind_are_their_checkpoints(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    checkpoint = tiny.checkpoint(case.family, tmp_path / "checkpoint", **case.overrides)
    rows = np.random.default_rng(0).integers(3, tiny.VOCABULARY, (2, 40))
    bundle = build(checkpoint, output=tmp_path / "model.edge", recipe=Recipe(), context=case.context, load_check=False)
    found = compare(bundle.path, checkpoint, rows)
    assert found.max_kld < 1e-6
    assert found.top1 == 1


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


def test_a_layer_that_does_not_fit_into_memory_is_refused(
    pycoder: Path, tokens: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = 4 * 4096 * 256  # float32; a layer has less
    monkeypatch.setattr(scorers, "available_memory", lambda: head)
    assert compare(pycoder, pycoder, tokens[:1, :8]).max_kld == 0
    monkeypatch.setattr(scorers, "available_memory", lambda: head - 1)
    with pytest.raises(OptionError, match=r"a layer of the float model takes 0\.00 GB of memory, and 0\.00 GB"):
        compare(pycoder, pycoder, tokens)


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
