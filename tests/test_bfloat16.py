"""tests: keys, values and rotary tables in bfloat16, of which the runtime holds the bits, as numpy has no such numbers.

No processor computes with them, so the toy widens what it reads, and narrows what it gives.
"""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from device import Apart
from edgewise.runtime.element import BITS, narrowed, widened
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window
from toy import CONTEXT, DYNAMIC, NAN, facts, toy

TOKENS = np.random.default_rng(1).integers(0, NAN, 60).tolist()
ROUNDED = 2**-8  # of a number, at most, by bfloat16
CLOSE = 8 * ROUNDED  # of the largest score: layers and tokens add up, and some errors cancel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toy")


@pytest.fixture(scope="module")
def floats(folder: Path) -> Model:
    return toy(folder, rotary=DYNAMIC)


@pytest.fixture(scope="module")
def model(folder: Path, floats: Model) -> Model:
    return in_bfloat16(folder)


def in_bfloat16(folder: Path, context: int | None = None) -> Model:
    """The toy with all that a session gives it in bfloat16, but for tokens."""
    (path,) = folder.glob("toy-*.onnx")
    proto = onnx.load(path)
    graph, before, after = proto.graph, list[onnx.NodeProto](), list[onnx.NodeProto]()
    for value in graph.input:
        if value.name.startswith(("past_key_values", "rotary")):
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
            before.append(helper.make_node("Cast", [value.name], [f"{value.name}.wide"], to=TensorProto.FLOAT))
    for value in graph.output:
        if value.name.startswith("present"):
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
            after.append(helper.make_node("Cast", [f"{value.name}.wide"], [value.name], to=TensorProto.BFLOAT16))
    wide = {node.input[0] for node in before} | {node.output[0] for node in after}
    for node in graph.node:
        node.input[:] = [f"{name}.wide" if name in wide else name for name in node.input]
        node.output[:] = [f"{name}.wide" if name in wide else name for name in node.output]
    for table in graph.initializer:
        if table.name in wide:
            bits = narrowed(numpy_helper.to_array(table), BITS)
            table.CopyFrom(helper.make_tensor(table.name, TensorProto.BFLOAT16, table.dims, bits.tobytes(), raw=True))
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(proto, folder / "bfloat16.onnx")
    return Model(folder / "bfloat16.onnx", facts(DYNAMIC), threads=1, context=context, computation="toy")


def assert_close(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> None:
    assert np.abs(found - wanted).max() <= CLOSE * np.abs(wanted).max()


@given(arrays(np.float32, 20, elements=st.floats(width=32)))
def test_numbers_become_bfloat16_and_float32_again_as_another_library_has_them(numbers: NDArray[np.float32]) -> None:
    with np.errstate(over="ignore"):
        other = numbers.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(widened(narrowed(numbers, BITS)), other.astype(np.float32))


def test_scores_are_those_of_float32_but_for_what_is_rounded(floats: Model, model: Model) -> None:
    assert {tensor.dtype for tensor in model.cache} == {BITS}
    sessions = [Session(each, capacity=CONTEXT) for each in (floats, model)]
    for piece in (TOKENS[:20], TOKENS[20:21], TOKENS[21:]):
        wanted, found = (session.prefill(piece).copy() for session in sessions)
        assert_close(found, wanted)
        assert np.abs(found - wanted).max() > 0


def test_half_of_the_memory_holds_the_keys_and_values(floats: Model, model: Model) -> None:
    full, half = (Session(each, capacity=64).pool.bytes for each in (floats, model))
    assert half == full / 2


def test_what_is_saved_is_read_back_and_says_what_it_is(model: Model, tmp_path: Path) -> None:
    session, path = Session(model, capacity=CONTEXT), tmp_path / "prompt.safetensors"
    session.prefill(TOKENS[:20])
    session.save(path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["past_key_values.0.key"]["dtype"] == "BF16"
    other = Session(model, capacity=CONTEXT)
    other.load(path)
    np.testing.assert_array_equal(other.decode(TOKENS[20]), session.decode(TOKENS[20]))


def test_a_window_moves_keys_that_are_bits(folder: Path, floats: Model) -> None:
    models = toy(folder, rotary=DYNAMIC, context=40), in_bfloat16(folder, context=40)
    sessions = [Session(each, capacity=9, window=Window(sinks=4)) for each in models]
    for start in range(0, 60, 12):
        wanted, found = (session.prefill(TOKENS[start : start + 12]).copy() for session in sessions)
        assert_close(found, wanted)
    assert sessions[1].forgotten == sessions[0].forgotten > 0


def test_bits_go_to_a_device_and_come_back(folder: Path, model: Model) -> None:
    there = in_bfloat16(folder)
    there.memory = Apart()
    here, session = Session(model, capacity=CONTEXT), Session(there, capacity=CONTEXT)
    for piece in (TOKENS[:20], TOKENS[20:21]):
        np.testing.assert_array_equal(session.prefill(piece), here.prefill(piece))
    for mine, theirs in zip(session.export(0, 21), here.export(0, 21), strict=True):
        np.testing.assert_array_equal(mine, theirs)
