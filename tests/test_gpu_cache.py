"""tests: a cache in int8 as GPUs take it: one scale for keys and values, or none at all."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest

import parity
from canonical import calibrated, tokens
from cases import CASES
from edgewise.errors import LoweringError
from edgewise.graph import Roles, get_facts
from edgewise.lint import lint
from edgewise.passes import BuildContext
from edgewise.registry import registry
from edgewise.writer import write_model
from edgewise_plugins.cache import QuantizeCache
from edgewise_plugins.quantize import Quantize
from edgewise_targets.ort.floats import Floats
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered

HALF = 1e-2  # as in test_gpu_lowering.py: what float16 takes from scores


def with_int8_cache(name: str, home: Path, *, scales: Literal["channel", "tensor"] = "tensor") -> ir.Model:
    """The canonical graph of a case, its keys and values rounded."""
    return QuantizeCache(scales=scales)(calibrated(parity.export(name, home), tokens(50, 40))).model


@pytest.mark.parametrize("floats", ["float32", "float16"])
@pytest.mark.parametrize("name", ["qwen2", "gemma3", "smollm3"])
def test_one_scale_for_keys_and_values_computes_what_the_graph_that_rounds_does(
    name: str, floats: Floats, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home, context = tmp_path_factory.getbasetemp(), CASES[name].context
    row = parity.oracle(name, home).tokens[0]
    model = with_int8_cache(name, home)
    facts = get_facts(model)
    write_model(model, tmp_path / "canonical.onnx")
    (expected,) = parity.Canonical(parity.load(tmp_path / "canonical.onnx"), facts, context)([row])
    LowerOrt(floats=floats, head_norms="reshaped")(model)
    assert get_facts(model).attention == facts.attention
    write_model(model, tmp_path / "lowered.onnx")
    (found,) = Lowered(parity.load(tmp_path / "lowered.onnx"), facts, context)([row])
    error = np.abs(found - expected).max(axis=-1) / np.abs(expected).max()
    # Where a sum in another order takes a number over the middle of two steps, it is off by one of 127.
    assert np.median(error) < (1e-4 if floats == "float32" else 2 * HALF)
    assert error.max() < 0.1
    assert not {node.op_type for node in model.graph} & {"QuantizeLinear", "DequantizeLinear"}


def test_a_cache_in_int8_is_for_nvidia_gpus_with_one_scale(tmp_path_factory: pytest.TempPathFactory) -> None:
    home, device = tmp_path_factory.getbasetemp(), registry().get_target("cuda")
    model = with_int8_cache("llama", home)
    model.meta["edgewise"] = BuildContext(target=device)
    Quantize(block_size=32, symmetric=True)(model)
    LowerOrt(floats="float16", head_norms="inside")(model)
    assert lint(model, device) == ()
    attention = Roles.of(model).one("attention", 2)
    scale = attention.inputs[12]
    assert scale
    assert scale is attention.inputs[13]
    assert scale.dtype == ir.DataType.FLOAT
    assert attention.attributes["k_quant_type"].as_string() == "PER_TENSOR"


@pytest.mark.parametrize(
    ("target", "scales", "fix"),
    [
        ("cuda", "channel", "set scales = 'tensor' of 'quantize-cache'"),
        ("webgpu", "tensor", "leave 'quantize-cache' out"),
        ("directml", "tensor", "leave 'quantize-cache' out"),
    ],
)
def test_a_cache_in_int8_that_a_gpu_has_no_kernel_for_is_refused(
    target: str, scales: Literal["channel", "tensor"], fix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = with_int8_cache("llama", tmp_path_factory.getbasetemp(), scales=scales)
    model.meta["edgewise"] = BuildContext(target=registry().get_target(target))
    with pytest.raises(LoweringError, match=f"target '{target}' runs on .*: {fix}"):
        LowerOrt(floats="float16")(model)
