"""tests: bundles for Qualcomm's accelerators, compiled by its own compiler and computed in its emulator."""

import json
import re
import shlex
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import parity
from edgewise.bundle.manifest import Provider
from edgewise.bundle.read import Bundle, verify
from edgewise.cli.main import execute
from edgewise.errors import LoweringError, MissingExtra, OptionError, TargetError
from edgewise.pipeline import build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.runtime.model import Model
from edgewise.runtime.runner import Runner
from edgewise.target import Compile, Target
from emulated import FLOAT16, chip, scores

pytest.importorskip("onnxruntime_qnn", reason="onnxruntime-qnn is not installed: pip install 'edgewise[qnn]'")

CHIPS = ("qnn-x-elite", "qnn-8-elite", "qnn-8-gen3")
FAMILIES = (
    "gemma2",
    "gemma3",
    "llama biased",
    "mistral",
    "olmo2",
    "phi3",
    "phi3 longrope short",
    "qwen2",
    "qwen3",
    "smollm3",
)
FLOATS = Recipe(())
QNN = "QNNExecutionProvider"
LLAMA = "llama tied"
CONTEXT = 32
PROMPT = 20  # over so many tokens that a norm of heads over four axes would go wrong


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.getbasetemp()


@pytest.fixture(scope="module")
def emulated(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A llama in int4 for an X Elite, in the form that the emulator loads."""
    output = tmp_path_factory.mktemp("qnn") / "llama.edge"
    checkpoint = parity.oracle(LLAMA, home).checkpoint
    return build(checkpoint, target=chip("qnn-x-elite"), output=output, context=CONTEXT, parity=8)


@pytest.fixture(scope="module")
def shared(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same, as it goes to the device."""
    output = tmp_path_factory.mktemp("qnn") / "llama.edge"
    return build(parity.oracle(LLAMA, home).checkpoint, target="qnn-x-elite", output=output, context=CONTEXT)


def assert_computes_what_transformers_computes(name: str, target: Target, home: Path, output: Path) -> None:
    oracle = parity.oracle(name, home)
    bundle = build(oracle.checkpoint, target=target, output=output, recipe=FLOATS, context=CONTEXT, load_check=False)
    tokens = oracle.tokens[0, : PROMPT + 6]
    expected = oracle.logits[0, PROMPT - 1 : len(tokens)]
    difference = np.abs(scores(bundle, tokens, PROMPT) - expected).max()
    assert difference <= FLOAT16 * np.abs(oracle.logits).max()


@pytest.mark.parametrize("case", [LLAMA, "qwen3"])
def test_in_floats_it_computes_what_transformers_computes(case: str, home: Path, tmp_path: Path) -> None:
    assert_computes_what_transformers_computes(case, chip("qnn-x-elite"), home, tmp_path / "model.edge")


@pytest.mark.slow
@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("case", FAMILIES)
def test_every_family_computes_on_every_chip_what_transformers_computes(
    case: str, name: str, home: Path, tmp_path: Path
) -> None:
    assert_computes_what_transformers_computes(case, chip(name), home, tmp_path / "model.edge")


def test_every_node_is_on_the_accelerator_and_the_card_says_for_which_chip(shared: Bundle) -> None:
    card = shared.manifest.card
    for counts in card["placement"]["nodes"].values():
        assert set(counts) == {QNN}
        assert counts[QNN] > 50
    assert card["compiled"]["options"] | {"soc_model": "60", "htp_arch": "73"} == card["compiled"]["options"]
    assert ":73:60:" in card["compiled"]["compatibility"]
    assert ", htp_arch 73, " in (shared.path / "README.md").read_text()
    assert "onnxruntime-qnn " in card["compiled"]["by"]


def test_both_graphs_of_a_bundle_are_one_node_on_one_binary(shared: Bundle, emulated: Bundle) -> None:
    verify(shared.path)
    files = [name for name in shared.manifest.files if name.startswith("onnx/")]
    assert sorted(files) == ["onnx/model.onnx", "onnx/model.onnx_context", "onnx/prefill.onnx"]
    for name in shared.manifest.graphs:
        (node,) = onnx.load(shared.graph(name)).graph.node
        assert node.op_type == "EPContext"
        assert {a.name: a.s for a in node.attribute}["ep_cache_context"] == b"model.onnx_context"
    apart = sum(file.bytes for name, file in emulated.manifest.files.items() if name.endswith("_context"))
    assert shared.manifest.files["onnx/model.onnx_context"].bytes < apart


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes(shared: Bundle, home: Path, tmp_path: Path) -> None:
    checkpoint = parity.oracle(LLAMA, home).checkpoint
    again = build(checkpoint, target="qnn-x-elite", output=tmp_path / "again.edge", context=CONTEXT)
    assert again.manifest.write() == shared.manifest.write()


def test_a_shared_binary_is_refused_where_there_is_only_the_emulator(shared: Bundle) -> None:
    with pytest.raises(TargetError, match="finds no 'npu' device here that it can use"):
        Model.load(shared.path, shared.manifest)


def test_the_card_compares_with_the_processor(emulated: Bundle) -> None:
    found = emulated.manifest.card["parity"]
    assert found["tokens"] == 8
    assert found["same"] == 8
    assert 0 < found["difference"] < FLOAT16
    assert found["mean_kld"] < 1e-3
    assert "- against the same graphs on a processor: the same 8 tokens" in (emulated.path / "README.md").read_text()


def test_a_chip_that_the_compiler_does_not_know_is_one_line(home: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"soc_model": "9999"}, r"soc_model 9999, .*Invalid config values"),
        ({"htp_arch": "99"}, "does not know htp_arch 99 of soc_model 60"),
    ):
        target = replace(registry().get_target("qnn-x-elite"), compile=Compile(options))
        with pytest.raises(TargetError, match=said) as caught:
            build(parity.oracle(LLAMA, home).checkpoint, target=target, output=tmp_path / "model.edge")
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())


def test_an_operator_that_the_accelerator_does_not_take_ends_the_build(home: Path, tmp_path: Path) -> None:
    halves = Recipe((RecipeStep("quantize", {"bits": 4, "block_size": 64, "symmetric": True}),))
    with pytest.raises(LoweringError, match="96 columns are no whole blocks of 64, which this accelerator needs"):
        build(parity.oracle(LLAMA, home).checkpoint, target="qnn-x-elite", recipe=halves, output=tmp_path / "m.edge")


def test_a_compiler_that_is_not_installed_is_named_with_its_extra(home: Path, tmp_path: Path) -> None:
    target = registry().get_target("qnn-x-elite")
    absent = replace(target, providers=(replace(target.providers[0], library="onnxruntime_absent"),))
    with pytest.raises(MissingExtra, match=r"pip install 'edgewise\[qnn\]'"):
        build(parity.oracle(LLAMA, home).checkpoint, target=absent, output=tmp_path / "model.edge")


def test_there_is_nothing_to_compare_on_a_processor(home: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="parity: 4 tokens cannot be compared"):
        build(parity.oracle(LLAMA, home).checkpoint, output=tmp_path / "model.edge", parity=4)


def test_less_than_no_tokens_are_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^parity: -3 is not a number of tokens$"):
        build(parity.oracle(LLAMA, home).checkpoint, target="qnn-x-elite", output=tmp_path / "m.edge", parity=-3)


@pytest.mark.parametrize("tokens", [CONTEXT, 100])
def test_more_tokens_than_the_context_holds_are_refused(tokens: int, home: Path, tmp_path: Path) -> None:
    checkpoint = parity.oracle(LLAMA, home).checkpoint
    with pytest.raises(
        OptionError, match=rf"^parity: {tokens} tokens after a prompt do not fit a context of {CONTEXT};"
    ):
        build(checkpoint, target="qnn-x-elite", output=tmp_path / "m.edge", context=CONTEXT, parity=tokens)


def test_the_speed_of_an_emulator_is_not_measured(home: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="the speed of an emulator says nothing about target 'qnn-x-elite'"):
        build(parity.oracle(LLAMA, home).checkpoint, target="qnn-x-elite", output=tmp_path / "m.edge", measure=True)


@pytest.mark.slow
def test_each_command_on_the_page_works(pycoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs/qnn.md").read_text("utf-8")
    ((name, profile),) = re.findall(r"`([\w-]+\.toml)`:\n\n```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / name).write_text(profile, "utf-8")
    (tmp_path / "examples").symlink_to(pycoder.parent)
    commands = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 3
    with chdir(tmp_path):
        for command in commands:
            assert execute(shlex.split(command)[1:]) == 0, capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", CHIPS)
def test_the_demo_writes_the_same_32_tokens_in_the_emulator_as_on_the_processor(
    name: str, pycoder: Path, tmp_path: Path
) -> None:
    target, texts = chip(name), []
    bundle = build(pycoder, target=target, output=tmp_path / "qnn.edge", context=128, parity=32)
    found = bundle.manifest.card["parity"]
    print(f"{name}: {json.dumps(found)}")
    assert found["same"] == 32
    processor = replace(target, providers=(Provider("CPUExecutionProvider"),), compile=None)
    other = build(pycoder, target=processor, output=tmp_path / "cpu.edge", context=128)
    for path in (bundle.path, other.path):
        with Runner.open(path) as runner:
            texts.append(runner.generate("def mean(values):\n", max_tokens=32).text)
    assert texts[0] == texts[1]
