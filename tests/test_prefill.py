"""tests: two graphs, one cache: long prompts by int8 products, all else by the graph that decodes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgewise.bundle.read import Bundle, verify
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import BundleError, GateError, OptionError
from edgewise.exporters import export_graph
from edgewise.graph import linears
from edgewise.integer import Int8Rows
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.prefill import prefill_graph
from edgewise.prepare import open_checkpoint, prepare
from edgewise.quality.evaluate import evaluate
from edgewise.quality.gate import Gate
from edgewise.quantized import BlockQuantized, Format
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.model import Model
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise_plugins.quantize import Quantize

TOKENS = np.random.default_rng(1).integers(4, 4096, 200).tolist()

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def both(two_graphs: Bundle) -> Model:
    return Model.load(two_graphs.path, two_graphs.manifest, threads=1)


@pytest.fixture(scope="module")
def prompts(two_graphs: Bundle) -> Model:
    return Model.load(two_graphs.path, two_graphs.manifest, threads=1, only="prefill")


@pytest.fixture(scope="module")
def decoder(two_graphs: Bundle) -> Model:
    return Model.load(two_graphs.path, two_graphs.manifest, threads=1, only="decode")


def external(path: Path) -> dict[str, tuple[str, int]]:
    """Where the tensors of a graph lie: file and offset, by name."""
    places = {}
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if entries:
            places[tensor.name] = entries["location"], int(entries["offset"])
    return places


def test_a_long_prompt_is_computed_by_one_graph_and_what_follows_by_the_other(
    both: Model, prompts: Model, decoder: Model
) -> None:
    session, first, second = (Session(model, capacity=210) for model in (both, prompts, decoder))
    np.testing.assert_array_equal(session.prefill(TOKENS, scores=150), first.prefill(TOKENS, scores=150))
    second.follow(first)
    for token in TOKENS[:3]:
        np.testing.assert_array_equal(session.decode(token), second.decode(token))
    np.testing.assert_array_equal(session.prefill(TOKENS[3:8], scores=5), second.prefill(TOKENS[3:8], scores=5))


def test_fewer_tokens_than_the_manifest_says_are_for_the_graph_that_decodes(
    both: Model, prompts: Model, decoder: Model, two_graphs: Bundle
) -> None:
    border = two_graphs.manifest.prefill_from
    assert 1 < border < 200
    for count, model in ((border - 1, decoder), (border, prompts)):
        found, expected = (Session(m, capacity=64).prefill(TOKENS[:count], scores=count) for m in (both, model))
        np.testing.assert_array_equal(found, expected)


def test_integers_are_multiplied_in_larger_chunks(both: Model, prompts: Model, pycoder_bundle: Bundle) -> None:
    assert Session(both, capacity=200).chunk == 2 * pycoder_bundle.manifest.chunk
    found, expected = (Session(model, capacity=200).prefill(TOKENS) for model in (both, prompts))
    np.testing.assert_array_equal(found, expected)


def test_the_same_chunks_give_the_same_scores_however_they_are_asked_for(both: Model) -> None:
    whole, piecewise = Session(both, capacity=200, chunk=64), Session(both, capacity=100, chunk=64)
    expected = whole.prefill(TOKENS[:140])
    for piece in (TOKENS[:64], TOKENS[64:128], TOKENS[128:140]):  # and the buffers have grown on the way
        found = piecewise.prefill(piece)
    np.testing.assert_array_equal(found, expected)


def test_after_a_rewind_scores_are_those_of_the_first_time(both: Model) -> None:
    session = Session(both, capacity=200)
    expected = session.prefill(TOKENS[:100], scores=3).copy(), session.decode(7).copy()
    session.rewind(0)
    found = session.prefill(TOKENS[:100], scores=3).copy(), session.decode(7).copy()
    for again, before in zip(found, expected, strict=True):
        np.testing.assert_array_equal(again, before)


def test_the_graph_that_decodes_is_that_of_a_bundle_without_another(two_graphs: Bundle, pycoder_bundle: Bundle) -> None:
    for name in ("onnx/model.onnx", "onnx/model.onnx_data"):
        assert two_graphs.manifest.files[name] == pycoder_bundle.manifest.files[name]
    assert two_graphs.graph() == two_graphs.path / "onnx/model.onnx"


def test_what_both_graphs_read_is_stored_once(two_graphs: Bundle) -> None:
    own, shared = external(two_graphs.graph("prefill")), external(two_graphs.graph())
    same = {name for name, (file, _) in own.items() if file == "model.onnx_data"}
    assert all(own[name] == shared[name] for name in same)
    assert {name.rpartition(".")[0] for name in own.keys() - same if "int8" in name} == {
        f"model.layers.{layer}.{part}.weight"
        for layer in range(6)
        for part in ("self_attn.qkv", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    }
    assert any("embed_tokens" in name for name in same)
    assert any(name.startswith("rotary") for name in same)


def test_the_plan_says_what_the_second_graph_takes(two_graphs: Bundle, pycoder: Path) -> None:
    plan, without = plan_build(pycoder, prefill="int8"), plan_build(pycoder)
    assert plan.prefill_memory == plan.run_memory - without.run_memory
    assert plan.prefill_memory - plan.prefill > without.parts["embedding"].after  # tied: the lm_head; activations too
    written = two_graphs.manifest.files["onnx/prefill.onnx_data"].bytes
    assert written == pytest.approx(plan.prefill, rel=0.01)
    assert two_graphs.manifest.card["prefill_bytes"] == plan.prefill


def test_a_bundle_of_two_graphs_is_verified_and_a_damaged_one_refused(folder: Path, two_graphs: Bundle) -> None:
    verify(two_graphs.path)
    bundle = build("checkpoint", output="two.edge", prefill="int8", load_check=False)
    data = bundle.path / "onnx/prefill.onnx_data"
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"prefill\.onnx_data does not match its hash"):
        verify(bundle.path)


def test_matrices_that_the_recipe_keeps_are_kept_for_prompts_too(pycoder: Path) -> None:
    rules = [{"role": "mlp.down", "layers": "1", "keep": True}]
    recipe = Recipe((RecipeStep("quantize", {"rules": rules}),))
    prepared = prepare(pycoder, target="cpu-x64", recipe=recipe, context=None, ignore_config=(), prefill="int8")
    assert prepared.prompts is not None
    kinds = {node.name: node.op_type for node in prepared.prompts.graph}
    assert kinds["model.layers.1.mlp.down_proj"] == "MatMul"
    assert kinds["model.layers.0.mlp.down_proj.rows"] == "MatMulIntegerToFloat"


def test_prompts_begin_with_the_weights_before_they_were_quantized(pycoder: Path, tmp_path: Path) -> None:
    """Not with those of 2 bits, in which the text is lost."""
    recipe = Recipe((RecipeStep("quantize", {"bits": 2, "rules": [{"role": "embedding", "keep": True}]}),))
    text = CalibrationText(pycoder / "heldout.txt", tokens=512)
    bundle = build(pycoder, output=tmp_path / "two.edge", recipe=recipe, prefill="int8", quality=text)
    found = bundle.manifest.card["quality"]
    assert found["mean_kld"] > 0.5
    assert found["prefill"]["mean_kld"] < 0.002


def test_a_checkpoint_that_came_quantized_is_rounded_once_more(pycoder: Path) -> None:
    model = Quantize()(export_graph(open_checkpoint(pycoder))).model
    matrices = {linear.name: linear.matrix for linear in linears(prefill_graph(model, {}, BuildContext()))}
    for linear in linears(model):
        before, after = linear.matrix, matrices[linear.name]
        assert isinstance(before, BlockQuantized)
        assert isinstance(after, BlockQuantized)
        assert before.form == Format(4, 128, symmetric=False)
        if linear.layer is None:
            assert after is before
        else:
            assert isinstance(after.form, Int8Rows)
            rows = before.read(0, 8)
            assert np.abs(after.read(0, 8) - rows).max() <= np.abs(rows).max() / 127  # a step, at the end of the codes


@pytest.mark.parametrize("steps", [(), (RecipeStep("w8a8"),)])
def test_a_second_graph_that_would_be_the_first_is_refused(steps: tuple[RecipeStep, ...], pycoder: Path) -> None:
    with pytest.raises(OptionError, match="the same graph once more"):
        plan_build(pycoder, recipe=Recipe(steps), prefill="int8")


def test_the_gate_holds_for_both_graphs(pycoder: Path, tmp_path: Path) -> None:
    steps = (RecipeStep("quantize", {"bits": 8, "block_size": 32}),)
    text = CalibrationText(pycoder / "heldout.txt", tokens=512)
    bundle = build(pycoder, output=tmp_path / "two.edge", recipe=Recipe(steps), prefill="int8", quality=text)
    found = bundle.manifest.card["quality"]
    between = (found["mean_kld"] + found["prefill"]["mean_kld"]) / 2
    assert found["mean_kld"] < between
    gated = Recipe(steps, Gate(max_mean_kld=between))
    with pytest.raises(GateError, match="the graph 'prefill'"):
        build(pycoder, output=tmp_path / "gated.edge", recipe=gated, prefill="int8", quality=text)
    assert not (tmp_path / "gated.edge").exists()


def test_w8a8_as_the_whole_model_keeps_the_text(pycoder: Path, tmp_path: Path) -> None:
    bundle = build(pycoder, output=tmp_path / "w8a8.edge", recipe=Recipe((RecipeStep("w8a8"),)))
    found = evaluate(bundle.path, CalibrationText(pycoder / "heldout.txt", tokens=2048), against=pycoder)
    assert found.distance is not None
    assert found.distance.mean_kld < 0.002
    with Runner.open(bundle.path) as runner:
        text = runner.generate("def read_json(path):\n    ", max_tokens=48).text
    assert "return" in text


def test_greedy_text_after_a_long_prompt_goes_on_with_the_program(two_graphs: Bundle, pycoder: Path) -> None:
    prompt = (pycoder / "heldout.txt").read_text("utf-8")[:1500]
    with Runner.open(two_graphs.path) as runner:
        result = runner.generate(prompt, max_tokens=64)
    assert len(result.tokens) == 64
    assert len(set(result.tokens)) > 15


def test_the_format_says_what_it_is() -> None:
    assert Int8Rows.of(columns=896).stored_bytes(10, 896) == 10 * (896 + 4)
