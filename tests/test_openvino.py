"""tests: OpenVINO on a processor computes bundles as they are built for it: every node, the same numbers and text."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

import openvino_anywhere
import parity
from appended import Appended
from cases import CASES
from edgewise.bundle.manifest import Provider
from edgewise.bundle.read import Bundle
from edgewise.facts import Facts
from edgewise.graph import get_facts
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.placement import RECORD
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.runtime.providers import configure
from edgewise.runtime.runner import Runner
from edgewise.target import Target
from edgewise.writer import write_model
from edgewise_plugins.quantize import Quantize
from edgewise_targets.primitive.lower import LowerPrimitive

PAGE = Path(__file__).parents[1] / "docs/openvino.md"
NAME = "OpenVINOExecutionProvider"
FAST = ["gemma2", "llama tied", "mixtral", "phi3 longrope", "qwen3", "smollm3"]  # all that families differ in
PROMPT = "def mean(values):\n    "


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The profile as it is, on whatever processor this is."""
    folder = tmp_path_factory.mktemp("openvino")
    library = openvino_anywhere.library(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield there(registry().get_target("openvino-cpu"), library)
        sys.modules.pop(library, None)


@pytest.fixture(scope="module")
def exact(target: Target, tmp_path_factory: pytest.TempPathFactory) -> Target:
    """The profile on the page, in which nothing is rounded: floats times what the codes of weights stand for."""
    (text,) = re.findall(r"`exact.toml`:\n\n```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    path = tmp_path_factory.mktemp("profile") / "exact.toml"
    path.write_text(text, "utf-8")
    return there(registry().get_target(str(path)), target.providers[0].library)


def there(target: Target, library: str) -> Target:
    """A target whose plugin is found on this processor."""
    return replace(target, providers=tuple(replace(provider, library=library) for provider in target.providers))


def session(model: ir.Model, path: Path, providers: tuple[Provider, ...]) -> ort.InferenceSession:
    """A session in which nothing may fall back."""
    write_model(model, path)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in RECORD.items():
        options.add_session_config_entry(key, value)
    built_in = configure(options, providers)
    return ort.InferenceSession(path, options, built_in, enable_fallback=0)


def lowered(model: ir.Model, name: str) -> tuple[ir.Model, Facts]:
    model.meta["edgewise"] = BuildContext(context=CASES[name].context)
    return LowerPrimitive()(model).model, get_facts(model)


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in sorted(CASES)]
)
def test_every_node_is_computed_there_as_transformers_does(
    name: str, target: Target, home: Path, tmp_path: Path
) -> None:
    model, facts = lowered(parity.export(name, home), name)
    graph = session(model, tmp_path / "model.onnx", target.providers)
    assert {part.ep_name for part in graph.get_provider_graph_assignment_info()} == {NAME}
    oracle = parity.oracle(name, home)
    found = parity.in_chunks(Appended(graph, facts, CASES[name].context), oracle.tokens)
    assert parity.difference(found, oracle) <= parity.TOLERANCE


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_quantized_weights_are_multiplied_by_floats(
    bits: Literal[4, 8], symmetric: bool, exact: Target, home: Path, tmp_path: Path
) -> None:
    name, tokens = "llama tied", parity.oracle("llama tied", home).tokens[:1]
    quantize = Quantize(bits=bits, block_size=32, symmetric=symmetric)
    model, facts = lowered(quantize(parity.export(name, home)).model, name)
    cpu, theirs = (
        session(model, tmp_path / f"{number}.onnx", providers)
        for number, providers in enumerate([(Provider("CPUExecutionProvider"),), exact.providers])
    )
    (expected,), (found,) = (parity.in_chunks(Appended(graph, facts, 64), tokens) for graph in (cpu, theirs))
    np.testing.assert_allclose(found, expected, rtol=0, atol=parity.TOLERANCE * np.abs(expected).max())


@pytest.fixture(scope="module")
def bundle(target: Target, pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(pycoder, target=target, output=tmp_path_factory.mktemp("bundle") / "pycoder.edge", parity=32)


def test_a_bundle_says_that_every_node_is_computed_there_and_how_it_compares(bundle: Bundle) -> None:
    card = bundle.manifest.card
    assert set(card["placement"]["nodes"]["decoder"]) == {NAME}
    assert "fallen" not in card["placement"]
    assert card["parity"]["tokens"] == card["parity"]["same"] == 32
    assert card["parity"]["difference"] < 0.02  # int8 activations, in blocks of 128
    assert card["parity"]["mean_kld"] < 1e-3


def test_where_activations_stay_floats_nothing_differs(exact: Target, pycoder: Path, tmp_path: Path) -> None:
    card = build(pycoder, target=exact, output=tmp_path / "exact.edge", parity=32).manifest.card
    assert card["parity"]["same"] == 32
    assert card["parity"]["difference"] < 1e-4


def test_the_demo_writes_what_it_writes_on_the_cpu(
    bundle: Bundle, target: Target, pycoder: Path, tmp_path: Path
) -> None:
    build(pycoder, output=tmp_path / "cpu.edge", recipe=Recipe(target.recipe))
    with Runner.open(tmp_path / "cpu.edge") as cpu, Runner.open(bundle.path) as there:
        expected, found = (runner.generate(PROMPT, max_tokens=32) for runner in (cpu, there))
    assert found.tokens == expected.tokens


def test_int8_writes_what_floats_write(target: Target, pycoder: Path, tmp_path: Path) -> None:
    int8 = Recipe((RecipeStep("quantize", {"bits": 8, "block_size": 128, "symmetric": True}),))
    build(pycoder, target=target, output=tmp_path / "int8.edge", recipe=int8)
    build(pycoder, output=tmp_path / "float.edge", recipe=Recipe())
    with Runner.open(tmp_path / "float.edge") as floats, Runner.open(tmp_path / "int8.edge") as there:
        expected, found = (runner.generate(PROMPT, max_tokens=32) for runner in (floats, there))
    assert found.tokens == expected.tokens


def test_a_bundle_that_is_compiled_ahead_is_the_same_bundle(
    bundle: Bundle, target: Target, pycoder: Path, tmp_path: Path
) -> None:
    ahead_of_time = there(registry().get_target("openvino-cpu-compiled"), target.providers[0].library)
    compiled = build(pycoder, target=ahead_of_time, output=tmp_path / "compiled.edge")
    graph = ir.load(compiled.path / compiled.manifest.graphs["decoder"])
    assert [node.op_type for node in graph.graph] == ["EPContext"]
    assert "isa=" in compiled.manifest.card["compiled"]["compatibility"]
    with Runner.open(bundle.path) as plain, Runner.open(compiled.path) as ahead:
        expected, found = (runner.generate(PROMPT, max_tokens=32) for runner in (plain, ahead))
    assert found.tokens == expected.tokens
