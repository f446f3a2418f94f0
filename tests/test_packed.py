"""tests: checkpoints that others have quantized, GPTQ and AWQ, keep their codes and compute what these stand for."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

import packed
import parity
import tiny
from edgewise.checkpoint import Checkpoint
from edgewise.graph import get_facts, linears, role
from edgewise.quantized import BlockQuantized, Format, unpack
from edgewise.tensors import Streamed, constant
from edgewise.writer import write_model
from edgewise_exporters.decoder import Decoder
from edgewise_exporters.decoder.packed import turned
from edgewise_exporters.decoder.packed.awq import Awq
from edgewise_exporters.decoder.packed.format import Packing
from edgewise_exporters.decoder.packed.gptq import Gptq
from edgewise_exporters.decoder.packed.matrix import read_matrix
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered
from packed import ACT_ORDER, AWQ, GPTQ, change_config, pair


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("llama", GPTQ),
        ("llama", {**GPTQ, "sym": True, "group_size": -1}),
        ("llama", {**GPTQ, "bits": 8, "checkpoint_format": "gptq_v2", "group_size": 16}),
        ("llama", ACT_ORDER),
        ("llama", {**GPTQ, "group_size": 24}),
        ("phi3", {**GPTQ, "bits": 2, "sym": True}),
        ("phi3", ACT_ORDER),
        ("qwen2", {**GPTQ, "bits": 8}),
        ("gemma2", AWQ),
        ("phi3", {**AWQ, "group_size": -1}),
        ("qwen2", AWQ),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_logits_are_those_of_transformers_with_the_dequantized_floats(
    family: str, config: dict[str, Any], tmp_path: Path
) -> None:
    made = pair(tmp_path, config, family)
    model = made.export()
    write_model(model, tmp_path / "model.onnx")
    tokens, oracle = _oracle(made.twin)
    session = parity.Canonical(parity.load(tmp_path / "model.onnx"), get_facts(model), 256)
    assert parity.difference(session(list(tokens)), oracle) <= parity.TOLERANCE


def _oracle(twin: Path) -> tuple[parity.Tokens, parity.Oracle]:
    tokens = np.random.default_rng(3).integers(3, tiny.VOCABULARY, (2, 24))
    with torch.no_grad():
        logits = parity.reference(twin)(torch.from_numpy(tokens)).logits.numpy()
    return tokens, parity.Oracle(twin, tokens, logits, greedy=())


@pytest.mark.parametrize(
    ("family", "config"), [("llama", GPTQ), ("phi3", {**GPTQ, "sym": True}), ("qwen2", AWQ), ("llama", ACT_ORDER)]
)
def test_the_lowered_graph_multiplies_with_the_codes_of_the_checkpoint(
    family: str, config: dict[str, Any], tmp_path: Path
) -> None:
    made = pair(tmp_path, config, family)
    model = made.export()
    before = {linear.name: linear.matrix for linear in linears(model)}
    lowered = LowerOrt(accuracy_level=0)(model).model  # activations in float32: as exact as the reference
    products = [node for node in lowered.graph if node.op_type == "MatMulNBits"]
    assert len(products) == 2 * 5  # queries, keys and values are one
    down = next(node for node in products if "1.mlp.down_proj" in str(node.name))
    codes, matrix = down.inputs[1], before["model.layers.1.mlp.down_proj.weight"]
    assert codes is not None
    assert codes.const_value is not None
    assert isinstance(matrix, BlockQuantized)
    np.testing.assert_array_equal(codes.const_value.numpy(), matrix.packed.numpy())
    write_model(lowered, tmp_path / "model.onnx")
    tokens, oracle = _oracle(made.twin)
    session = Lowered(parity.load(tmp_path / "model.onnx"), get_facts(model), 256)
    assert parity.difference(session(list(tokens)), oracle) <= parity.TOLERANCE


SIZES = st.integers(1, 24).map(lambda n: 8 * n)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["gptq", "gptq_v2", "awq"]), st.sampled_from([2, 4, 8]), st.sampled_from([-1, 8, 16, 32, 48, 128]),
    st.booleans(), st.booleans(), SIZES, SIZES, st.integers(0, 2**32),
)  # fmt: skip
def test_codes_scales_and_zero_points_are_those_that_were_packed(
    kind: str, bits: int, group_size: int, symmetric: bool, shuffled: bool, rows: int, columns: int, seed: int
) -> None:
    assume(kind != "awq" or (bits == 4 and not symmetric and not shuffled))
    coded = _random(rows, columns, bits, group_size, symmetric, seed)
    if shuffled:
        coded = replace(coded, groups=np.random.default_rng(seed).permutation(coded.groups))
    packing: Packing = Awq(bits, group_size)
    if kind != "awq":
        packing = Gptq(bits, group_size, symmetric, zero_offset=int(kind == "gptq"))
    found = read_matrix(packing, _tensors(coded, kind, bits), rows, columns)
    matrix, order = found.tensor, slice(None) if found.order is None else found.order
    floats, middle = coded.floats()[:, order], rows // 3
    np.testing.assert_array_equal(matrix.numpy(), floats)
    np.testing.assert_array_equal(np.concatenate([matrix.read(0, middle), matrix.read(middle, rows)]), floats)
    if not isinstance(matrix, BlockQuantized):
        assert group_size == 8 or bits == 2 or columns < 16
        return
    block = matrix.quantized(0, rows)
    codes = unpack(block.packed, bits).reshape(rows, -1)
    np.testing.assert_array_equal(codes[:, :columns], coded.codes[:, order])
    last = coded.zero_points[:, -1:]
    assert (codes[:, columns:] == last).all(), "columns beyond the matrix weigh nothing"


def _random(rows: int, columns: int, bits: int, group_size: int, symmetric: bool, seed: int) -> packed.Coded:
    """Any codes and any zero points, 0 and the highest too."""
    random = np.random.default_rng(seed)
    groups = np.arange(columns, dtype=np.int32) // (columns if group_size == -1 else group_size)
    shape = (rows, int(groups[-1]) + 1)
    zeros = np.full(shape, 2 ** (bits - 1)) if symmetric else random.integers(0, 2**bits, shape)
    scales = random.standard_normal(shape).astype(np.float16)
    return packed.Coded(random.integers(0, 2**bits, (rows, columns)), zeros, scales, groups)


def _tensors(coded: packed.Coded, kind: str, bits: int) -> dict[str, Streamed]:
    parts = packed.awq(coded) if kind == "awq" else packed.gptq(coded, bits=bits, version=1 if kind == "gptq" else 2)
    return {part: constant(np.ascontiguousarray(array), name=f"m.{part}") for part, array in parts.items()}


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_a_matrix_is_read_in_chunks_of_its_outputs(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turned, "CHUNK_BYTES", 1000)  # a few words of each tensor
    coded = _random(200, 96, 4, 32, False, 1)
    packing: Packing = Awq(4, 32) if kind == "awq" else Gptq(4, 32)
    matrix = read_matrix(packing, _tensors(coded, kind, 4), 200, 96).tensor
    assert isinstance(matrix, BlockQuantized)
    np.testing.assert_array_equal(matrix.numpy(), coded.floats())
    np.testing.assert_array_equal(matrix.read(37, 101), coded.floats()[37:101])
    blocks = [matrix.quantized(start, min(start + 7, 200)) for start in range(0, 200, 7)]
    codes = np.concatenate([unpack(block.packed, 4).reshape(len(block.packed), -1) for block in blocks])
    np.testing.assert_array_equal(codes, coded.codes)


@pytest.mark.parametrize(
    ("bits", "group_size", "columns", "block"),
    [
        (4, 128, 256, 128), (4, 256, 512, 256), (8, 16, 64, 16), (4, 512, 1024, 128), (4, 96, 192, 32), (4, 48, 96, 16),
        (4, -1, 11008, 128), (4, -1, 896, 128), (4, -1, 96, 64), (2, -1, 4864, 128), (2, 256, 512, 128),
        (4, 1024, 896, 128), (2, 16, 64, None), (4, 24, 96, None), (4, 20, 80, None),
    ],
)  # fmt: skip
def test_a_group_becomes_blocks_that_kernels_take_or_floats(
    bits: int, group_size: int, columns: int, block: int | None
) -> None:
    coded = _random(16, columns, bits, group_size, False, 5)
    matrix = read_matrix(Gptq(bits, group_size), _tensors(coded, "gptq", bits), 16, columns).tensor
    assert (matrix.form.block_size if isinstance(matrix, BlockQuantized) else None) == block


def test_groups_of_unequal_size_become_floats() -> None:
    groups = np.sort(np.random.default_rng(4).integers(0, 3, 96)).astype(np.int32)
    assert (groups != np.arange(96) // 32).any()
    coded = replace(_random(16, 96, 4, 32, False, 5), groups=groups)
    matrix = read_matrix(Gptq(4, 32), _tensors(coded, "gptq", 4), 16, 96)
    assert matrix.order is None
    assert not isinstance(matrix.tensor, BlockQuantized)
    np.testing.assert_array_equal(matrix.tensor.numpy(), coded.floats())


def test_fused_projections_are_rows_with_the_codes_that_they_have(tmp_path: Path) -> None:
    made = pair(tmp_path, GPTQ, "phi3")
    found = {linear.role: linear.matrix for linear in linears(made.export()) if linear.layer == 1}
    parts = [found[f"attention.{part}"] for part in "qkv"]
    whole = load_file(made.twin / "model.safetensors")["model.layers.1.self_attn.qkv_proj.weight"]
    np.testing.assert_array_equal(np.concatenate([part.numpy() for part in parts]), whole)
    assert [part.form for part in parts if isinstance(part, BlockQuantized)] == [Format(4, 32, False)] * 3


def test_columns_in_the_order_of_activations_keep_their_codes_behind_a_gather(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = pair(tmp_path, ACT_ORDER)
    model = made.export()
    floats = load_file(made.twin / "model.safetensors")
    assert not caplog.records
    ordered = {}
    for linear in linears(model):
        if linear.layer is not None:
            (x, _), matrix = linear.node.inputs, linear.matrix
            assert x is not None
            gather = ordered[linear.role, linear.layer] = cast(ir.Node, x.producer())
            order = cast(ir.Value, gather.inputs[1]).const_value
            assert order is not None
            assert isinstance(matrix, BlockQuantized)
            np.testing.assert_array_equal(matrix.numpy(), floats[linear.name][:, order.numpy()])
    assert ordered["attention.q", 0] is ordered["attention.k", 0] is ordered["attention.v", 0]
    assert ordered["mlp.gate", 1] is ordered["mlp.up", 1]
    assert role(ordered["mlp.down", 1]) == "mlp.down.order"


def test_groups_of_a_size_that_no_kernel_takes_become_floats_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = pair(tmp_path, {**GPTQ, "group_size": 24})
    assert not any(isinstance(linear.matrix, BlockQuantized) for linear in linears(made.export()))
    (message,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert message.startswith("14 packed matrices become floats (the first is model.layers.0.mlp.down_proj)")


def test_an_order_that_changes_no_group_stays_packed(tmp_path: Path) -> None:
    made = pair(tmp_path, GPTQ)
    change_config(made.packed, desc_act=True, static_groups=True)
    assert sum(isinstance(linear.matrix, BlockQuantized) for linear in linears(made.export())) == 14


def test_modules_that_were_not_converted_stay_floats(tmp_path: Path) -> None:
    made = pair(tmp_path, {**AWQ, "modules_to_not_convert": ["q_proj"]}, keep=("q_proj",))
    quantized = {linear.role: isinstance(linear.matrix, BlockQuantized) for linear in linears(made.export())}
    assert not quantized["attention.q"]
    assert quantized["attention.k"]
    assert not quantized["embedding"]
    assert not quantized["lm_head"]


def test_no_code_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(pair(tmp_path, GPTQ).packed)

    def read(start: int, stop: int) -> np.ndarray:
        raise AssertionError("a weight was read")

    tensors = {
        name: tensor if name.endswith("g_idx") else Streamed(tensor.dims, tensor.dtype, read, name=name)
        for name, tensor in checkpoint.tensors.items()
    }
    model = Decoder().export(Checkpoint("test", checkpoint.folder, checkpoint.config, {}, tensors, {}))
    assert sum(isinstance(linear.matrix, BlockQuantized) for linear in linears(model)) == 14
