"""tests: an independent runtime, onnxruntime-genai, loads a bundle as it is and says what ours says."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

import tiny
from cases import DYNAMIC
from edgewise.bundle import genai
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.pipeline import build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.target import Numerics

Peer = Callable[[Path, int, Sequence[int]], dict[str, Any]]

STEPS = 64


@pytest.fixture(scope="session")
def genai_python(request: pytest.FixtureRequest) -> str:
    """A Python with onnxruntime-genai and our onnxruntime: EDGEWISE_GENAI_PYTHON, or one made here and kept."""
    if given := os.environ.get("EDGEWISE_GENAI_PYTHON"):
        return given
    packages = ["onnxruntime-genai==0.18.*", f"onnxruntime=={version('onnxruntime')}"]
    assert request.config.cache
    folder = request.config.cache.mkdir("genai") / "-".join([*packages, *map(str, sys.version_info[:2])])
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        if (done := subprocess.run(pip, capture_output=True, text=True)).returncode:
            shutil.rmtree(folder)
            reason = f"onnxruntime-genai cannot be installed: {done.stderr.strip()[-300:]}"
            pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
        (folder / "ready").touch()
    return str(python)


@pytest.fixture
def peer(genai_python: str) -> Peer:
    script = Path(__file__).with_name("genai_peer.py")

    def run(folder: Path, count: int, prompt: Sequence[int]) -> dict[str, Any]:
        command = [genai_python, str(script), str(folder), str(count), *map(str, prompt)]
        silent = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=silent)
        assert done.returncode == 0, done.stderr
        reply: dict[str, Any] = json.loads(done.stdout)
        return reply

    return run


def greedy(bundle: Bundle, count: int, prompt: Sequence[int], *, only: str | None = None) -> list[int]:
    """What our runtime says."""
    session = Session(Model.load(bundle.path, bundle.manifest, only=only), capacity=len(prompt) + count)
    tokens = [int(session.prefill(prompt)[0].argmax())]
    while len(tokens) < count:
        tokens.append(int(session.decode(tokens[-1])[0].argmax()))
    return tokens


@pytest.mark.parametrize("text", ["def read_json(", "import os\n\n\nclass "])
def test_genai_runs_the_demo_bundle_as_it_is_and_says_the_same(pycoder_bundle: Bundle, peer: Peer, text: str) -> None:
    prompt = Tokenizer.from_file(str(pycoder_bundle.path / "tokenizer.json")).encode(text).ids
    reply = peer(pycoder_bundle.path, STEPS, prompt)
    assert reply["tokens"] == greedy(pycoder_bundle, STEPS, prompt)
    assert len(set(reply["tokens"])) > 10
    assert reply["defaults"]["max_length"] == pycoder_bundle.manifest.context


def test_genai_runs_the_graph_that_decodes_where_there_are_two(two_graphs: Bundle, pycoder: Path, peer: Peer) -> None:
    tokenizer = Tokenizer.from_file(str(two_graphs.path / "tokenizer.json"))
    prompt = tokenizer.encode((pycoder / "heldout.txt").read_text("utf-8")[:400]).ids
    assert len(prompt) >= two_graphs.manifest.prefill_from  # our runtime would take the other one
    assert peer(two_graphs.path, STEPS, prompt)["tokens"] == greedy(two_graphs, STEPS, prompt, only="decode")


def test_genai_keeps_keys_and_values_in_int8_too(pycoder: Path, tmp_path: Path, peer: Peer) -> None:
    recipe = Recipe((RecipeStep("quantize-cache"),))
    text = CalibrationText(pycoder / "heldout.txt", tokens=2048, length=256)
    bundle = build(pycoder, output=tmp_path / "model.edge", recipe=recipe, calibration=text)
    prompt = [312, 854, 66, 77, 86, 267, 11]
    assert peer(bundle.path, 32, prompt)["tokens"] == greedy(bundle, 32, prompt)


@pytest.mark.parametrize("family", ["gemma2", "phi3", "qwen3"])
def test_genai_runs_other_families_and_says_the_same(family: str, tmp_path: Path, peer: Peer) -> None:
    checkpoint = tiny.checkpoint(family, tmp_path / "checkpoint", eos_token_id=1)
    bundle = build(checkpoint, output=tmp_path / "model.edge", recipe=Recipe())
    prompt = list(range(3, 40))
    tokens = greedy(bundle, STEPS, prompt)
    assert 1 not in tokens  # it would end the peer's
    assert peer(bundle.path, STEPS, prompt)["tokens"] == tokens


def test_genai_runs_a_model_that_is_pruned_in_every_direction(pycoder: Path, tmp_path: Path, peer: Peer) -> None:
    steps = {"prune-layers": 5, "prune-heads": 0.5, "prune-width": 0.75, "prune-hidden": 0.75}
    pruned = (RecipeStep(name, {"keep": keep}) for name, keep in steps.items())
    recipe = Recipe((RecipeStep("prune-vocabulary"), *pruned))
    text = CalibrationText(pycoder / "calibration.txt", tokens=2048, length=256)
    bundle = build(pycoder, output=tmp_path / "model.edge", recipe=recipe, calibration=text)
    prompt = [312, 854, 66, 77, 86, 267, 11]
    assert peer(bundle.path, 32, prompt)["tokens"] == greedy(bundle, 32, prompt)


@pytest.mark.parametrize("options", [{"floats": "float16"}, {"rotary": "before", "packed": False}])
def test_genai_runs_what_is_lowered_as_for_gpus(
    options: dict[str, Any], pycoder: Path, tmp_path: Path, peer: Peer
) -> None:
    """In float16; with positions as an input, as for DirectML. The processor runs both."""
    steps = (RecipeStep("lower-ort", options),)
    target = replace(registry().get_target("cpu-x64"), lowering=steps, numerics=Numerics())
    bundle = build(pycoder, target=target, recipe=Recipe(), output=tmp_path / "model.edge")
    prompt = [312, 854, 66, 77, 86, 267, 11]
    assert peer(bundle.path, 32, prompt)["tokens"] == greedy(bundle, 32, prompt)


@pytest.mark.parametrize(
    ("target", "name"), [("cuda", "cuda"), ("directml", "dml"), ("webgpu", "webgpu"), ("tensorrt-rtx", "NvTensorRtRtx")]
)
def test_genai_is_told_the_provider_of_a_gpu(target: str, name: str, pycoder: Path, tmp_path: Path) -> None:
    bundle = build(pycoder, target=target, output=tmp_path / "model.edge", load_check=False)
    decoder = json.loads((bundle.path / "genai_config.json").read_text())["model"]["decoder"]
    assert decoder["session_options"] == {"provider_options": [{name: {}}], **bundle.manifest.session}
    assert ("position_ids" in decoder["inputs"]) == (target == "directml")


def test_genai_says_the_same_beyond_the_original_context(tmp_path: Path, peer: Peer) -> None:
    checkpoint = tiny.checkpoint("llama", tmp_path / "checkpoint", **DYNAMIC, eos_token_id=1)
    bundle = build(checkpoint, output=tmp_path / "model.edge", recipe=Recipe(), context=200)
    prompt = list(range(3, 123))
    tokens = greedy(bundle, STEPS, prompt)
    assert 1 not in tokens
    assert peer(bundle.path, STEPS, prompt)["tokens"] == tokens


def test_genai_takes_over_how_the_checkpoint_wants_to_be_sampled(pycoder: Path, tmp_path: Path, peer: Peer) -> None:
    checkpoint = shutil.copytree(pycoder, tmp_path / "checkpoint")
    wanted = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1}
    settings = {**wanted, "eos_token_id": [0, 5], "pad_token_id": None, "min_p": 0.1, "max_new_tokens": 99}
    (checkpoint / "generation_config.json").write_text(json.dumps(settings))
    bundle = build(checkpoint, output=tmp_path / "model.edge", context=200, load_check=False)
    defaults = peer(bundle.path, 1, [312])["defaults"]
    assert {key: defaults[key] for key in wanted} == pytest.approx(wanted)
    assert defaults["max_length"] == 200


def test_no_more_cache_is_allocated_by_default_than_the_target_allows(pycoder_bundle: Bundle) -> None:
    facts = replace(pycoder_bundle.manifest.language_model, context_length=131_072)
    config = genai.genai_config(facts, graph="onnx/model.onnx", context=4096, shared=True, generation={})
    assert config["model"]["context_length"] == 131_072
    assert config["search"]["max_length"] == 4096


def test_a_model_that_ends_with_no_token_of_its_own_still_has_a_padding(pycoder_bundle: Bundle) -> None:
    facts = replace(pycoder_bundle.manifest.language_model, eos=(), pad=None, bos=None)
    config = genai.genai_config(facts, graph="onnx/model.onnx", context=4096, shared=True, generation={})
    assert config["model"]["eos_token_id"] == []
    assert config["model"]["pad_token_id"] == 0
    assert "bos_token_id" not in config["model"]


def test_the_example_in_the_docs_works(pycoder_bundle: Bundle, genai_python: str) -> None:
    page = Path(__file__).parents[1] / "docs" / "bundle.md"
    (block,) = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    silent = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [genai_python, "-c", block], cwd=pycoder_bundle.path.parent, capture_output=True, text=True, env=silent
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split(",")) == 32
