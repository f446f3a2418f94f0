"""tests: checkpoints that others have quantized, built: their codes are kept, and recipes take what is left."""

import logging
import re
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors.numpy import load_file

from edgewise.errors import GraphError
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.quantized import Format
from edgewise.recipe import Recipe
from edgewise_exporters.decoder.packed.config import METHODS
from edgewise_plugins.quantize import Quantize
from edgewise_plugins.quantize.rules import Rule
from packed import ACT_ORDER, AWQ, GPTQ, pair

PAGE = Path(__file__).parents[1] / "docs" / "quantized-checkpoints.md"


@pytest.mark.parametrize("config", [{**GPTQ, "sym": True, "group_size": -1}, AWQ])
def test_a_build_without_a_quantize_step_keeps_the_bits(config: dict[str, Any], tmp_path: Path) -> None:
    made = pair(tmp_path, config)
    bundle = build(made.packed, output=tmp_path / "model.edge", recipe=Recipe())
    graph = onnx.load(bundle.path / "onnx" / "model.onnx", load_external_data=False).graph
    operators = [node.op_type for node in graph.node]
    assert operators.count("MatMulNBits") == 2 * 5
    assert operators.count("MatMul") == 1  # the lm_head was left as it is
    assert operators.count("Gather") == 2  # so was the embedding; the other one counts tokens


def test_the_default_recipe_leaves_alone_what_is_quantized(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = pair(tmp_path, GPTQ)
    with caplog.at_level(logging.INFO):
        bundle = build(made.packed, output=tmp_path / "model.edge")
    assert "kept as it is: 14 of 16 matrices" in caplog.text
    assert "quantized already, and left so: 14" in caplog.text
    graph = onnx.load(bundle.path / "onnx" / "model.onnx", load_external_data=False).graph
    blocks = {
        next(a.i for a in node.attribute if a.name == "block_size")
        for node in graph.node
        if node.op_type == "MatMulNBits" and "layers" in node.name
    }
    assert blocks == {32}
    assert {"MatMul", "Gather"} & {node.op_type for node in graph.node} == {"Gather"}


def test_the_recipe_in_the_docs_quantizes_what_is_left(tmp_path: Path) -> None:
    made = pair(tmp_path, GPTQ)
    (recipe,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "recipe.toml").write_text(recipe)
    bundle = build(made.packed, output=tmp_path / "model.edge", recipe=tmp_path / "recipe.toml")
    graph = onnx.load(bundle.path / "onnx" / "model.onnx", load_external_data=False).graph
    bits = {
        node.name.partition(".layers.")[0]: attribute.i
        for node in graph.node
        for attribute in node.attribute
        if attribute.name == "bits"
    }
    assert bits == {"hidden.0.blocks": 8, "model": 4, "logits": 8}


def test_the_docs_list_the_methods_that_are_read() -> None:
    listed = re.findall(r"^\| `(\w+)`", PAGE.read_text("utf-8"), re.MULTILINE)[1:]
    assert listed == [*sorted(METHODS, reverse=True), "mxfp4"]  # the last is read with the family that has it


def test_a_rule_that_wants_a_quantized_matrix_in_another_way_is_refused(tmp_path: Path) -> None:
    made = pair(tmp_path, GPTQ)
    with pytest.raises(GraphError, match=r"down_proj.weight' is quantized already \(int4, block 32, asymmetric\)"):
        Quantize(rules=(Rule(role="mlp.down", bits=8),))(made.export())


@pytest.mark.parametrize("config", [GPTQ, AWQ, ACT_ORDER, {**GPTQ, "group_size": 24}])
def test_the_plan_counts_what_the_checkpoint_stores(config: dict[str, Any], tmp_path: Path) -> None:
    made = pair(tmp_path, config, "phi3")
    stored = {name: array.nbytes for name, array in load_file(made.packed / "model.safetensors").items()}
    coded = sum(size for name, size in stored.items() if "_proj" in name)
    plan = plan_build(made.packed, recipe=Recipe())
    assert plan.parts["attention"].before + plan.parts["mlp"].before == coded
    floats = load_file(made.twin / "model.safetensors")
    assert plan.total.parameters == sum(array.size for array in floats.values())
    shapes = [array.shape for name, array in floats.items() if "_proj" in name]
    after = plan.parts["attention"].after + plan.parts["mlp"].after
    if config["group_size"] == 24:
        assert after == sum(4 * rows * columns for rows, columns in shapes)
    else:
        assert after == sum(Format(4, 32, symmetric=False).stored_bytes(*shape) for shape in shapes)
