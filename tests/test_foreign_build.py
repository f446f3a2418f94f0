"""tests: builds of decoders that others have exported: fewer bits, gates, what the card says, what a device needs."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.bundle.manifest import Cache
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import GateError, GenerationError, LoweringError, RecipeError
from edgewise.pipeline import build
from edgewise.quality.gate import Gate
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from foreign import FIXTURES, export_by_optimum, oracle

pytestmark = pytest.mark.usefixtures("cache")

TEXT = "the quick brown fox jumps over the lazy dog, and then it does so again; " * 12


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CalibrationText:
    export_by_optimum(monkeypatch)
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return CalibrationText(path, tokens=256, length=64)


def recipe(bits: int, *, method: str = "nearest", kld: float = 1.0) -> Recipe:
    options = {"bits": bits, "block_size": 32, "method": method}
    return Recipe((RecipeStep("quantize", options),), Gate(max_mean_kld=kld))


@pytest.mark.parametrize(
    ("name", "bits", "method", "kld"),
    [
        ("bloom", 8, "nearest", 0.01),
        pytest.param("bloom", 4, "hqq", 1.0, marks=pytest.mark.slow),
        ("gpt2", 4, "nearest", 1.0),
    ],
)
def test_weights_get_fewer_bits_and_pass_a_gate(
    text: CalibrationText, tmp_path: Path, name: str, bits: int, method: str, kld: float
) -> None:
    bundle = build(
        FIXTURES / name, output=tmp_path / "x.edge", recipe=recipe(bits, method=method, kld=kld), quality=text
    )
    quality, sizes = bundle.manifest.card["quality"], bundle.manifest.card["bytes"]
    assert 0 < quality["mean_kld"] < kld
    assert sizes["after"] < 0.55 * sizes["before"]
    with Runner.open(bundle.path) as runner:
        assert len(runner.generate("the quick", max_tokens=4).tokens) <= 4


def test_a_bundle_that_is_too_far_from_its_graph_is_not_built(text: CalibrationText, tmp_path: Path) -> None:
    with pytest.raises(
        GateError, match=r"Its layers cannot be told apart: the model cannot be measured layer by layer"
    ):
        build(FIXTURES / "bloom", output=tmp_path / "x.edge", recipe=recipe(4, kld=1e-6), quality=text)
    assert not (tmp_path / "x.edge").exists()


@pytest.mark.slow
def test_calibrated_methods_work_where_attention_is_recognised(text: CalibrationText, tmp_path: Path) -> None:
    bundle = build(
        FIXTURES / "opt", output=tmp_path / "x.edge", recipe=recipe(4, method="gptq"), quality=text, calibration=text
    )
    plain = build(FIXTURES / "opt", output=tmp_path / "y.edge", recipe=recipe(4), quality=text)
    found, other = (each.manifest.card["quality"]["mean_kld"] for each in (bundle, plain))
    assert found < other


def test_calibrated_methods_are_refused_in_one_line_elsewhere(text: CalibrationText, tmp_path: Path) -> None:
    gptq = Recipe((RecipeStep("quantize", {"method": "gptq"}),))
    with pytest.raises(RecipeError, match=r"cannot be measured layer by layer: its graph comes from another exporter"):
        build(FIXTURES / "bloom", output=tmp_path / "x.edge", recipe=gptq, calibration=text)


@pytest.fixture
def bloom(text: CalibrationText, tmp_path: Path) -> Bundle:
    return build(FIXTURES / "bloom", output=tmp_path / "bloom.edge", recipe=Recipe(), load_check=False)


def test_a_bundle_says_who_keeps_the_cache_and_what_was_left(bloom: Bundle) -> None:
    assert bloom.manifest.cache == Cache("float32", shared=False)
    assert not (bloom.path / "genai_config.json").exists()
    said = " ".join(bloom.manifest.card["remarks"])
    assert "the attention of layer 0 is none of those that were tried" in said
    assert "keys and values are copied at each step" in said


def test_recognised_attention_keeps_its_cache_in_place(text: CalibrationText, tmp_path: Path) -> None:
    bundle = build(FIXTURES / "gpt2", output=tmp_path / "x.edge", recipe=Recipe(), load_check=False)
    assert bundle.manifest.cache == Cache("float32", shared=True)
    assert (bundle.path / "genai_config.json").exists()
    assert "remarks" not in bundle.manifest.card


@pytest.mark.parametrize("name", ["bloom", "gpt2"])
def test_sessions_fork_rewind_save_and_share_a_pool(text: CalibrationText, tmp_path: Path, name: str) -> None:
    bundle = build(FIXTURES / name, output=tmp_path / "x.edge", recipe=Recipe(), load_check=False)
    model, wanted = Model.load(bundle.path, bundle.manifest, threads=1), oracle(name)
    pool, tokens = Pool(model, capacity=3, slots=2), wanted.tokens
    one = Session(model, capacity=3, pool=pool)
    one.prefill(tokens[:20])
    other = one.fork(11, pool=pool)
    scores = other.prefill(tokens[11:15], scores=4)
    np.testing.assert_allclose(scores, wanted.logits[11:15], rtol=0, atol=1e-4)
    one.rewind(17)
    np.testing.assert_allclose(one.decode(tokens[17])[0], wanted.logits[17], rtol=0, atol=1e-4)
    one.save(tmp_path / "cache")
    fresh = Session(model, capacity=1)
    fresh.load(tmp_path / "cache")
    np.testing.assert_allclose(fresh.decode(tokens[18])[0], wanted.logits[18], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["bloom", "gpt2"])
def test_a_context_that_cannot_move_is_refused_a_window(text: CalibrationText, tmp_path: Path, name: str) -> None:
    bundle = build(FIXTURES / name, output=tmp_path / "x.edge", recipe=Recipe(), load_check=False)
    with (
        Runner.open(bundle.path) as runner,
        pytest.raises(GenerationError, match=r"cannot go on with a window: the model"),
    ):
        runner.generate("the quick", max_tokens=2, overflow="window")


@pytest.mark.parametrize("target", ["cuda", "openvino-cpu"])
def test_targets_that_need_more_than_is_stated_say_so(text: CalibrationText, tmp_path: Path, target: str) -> None:
    with pytest.raises(LoweringError, match=r"was not recognised"):
        build(FIXTURES / "bloom", target=target, output=tmp_path / "x.edge", recipe=Recipe(), load_check=False)


def test_a_device_runs_a_bundle_with_its_own_packages_alone(bloom: Bundle) -> None:
    absent = ("onnx", "onnx_ir", "onnxscript", "ml_dtypes", "safetensors", "huggingface_hub", "torch", "transformers")
    script = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({absent!r}))\n"
        "import edgewise\n"
        f"with edgewise.Runner.open({str(bloom.path)!r}) as runner:\n"
        "    print(len(runner.generate('the quick', max_tokens=3).tokens))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 3
