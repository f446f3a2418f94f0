"""tests: packed checkpoints that are refused: formats, tensors and configurations that do not fit together."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise_exporters.decoder import Decoder
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.packed.config import read_packing
from packed import AWQ, GPTQ, QUERY, Pair, change_config, pair


def test_biases_of_zeros_that_older_tools_added_are_ignored_and_others_are_not(tmp_path: Path) -> None:
    made = pair(tmp_path, GPTQ)
    _change_tensors(made.packed, **{f"{QUERY}.bias": np.zeros(128, np.float16)})
    made.export()
    _change_tensors(made.packed, **{f"{QUERY}.bias": np.ones(128, np.float16)})
    assert f"tensor '{QUERY}.bias', [128] FLOAT16, has no place" in _refusal(made)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quant_method": "bitsandbytes"}, ["'bitsandbytes'", "known: awq, gptq", "the checkpoint that it was made"]),
        ({"quant_method": "fp8"}, ["'quant_method': 'fp8'", "known: awq, gptq"]),
        ({"quant_method": "compressed-tensors"}, ["'compressed-tensors'"]),
        ({"quant_method": "hqq"}, ["'hqq'"]),
        ({"quant_method": None}, ["'None'", "known: awq, gptq"]),
        ({"quant_method": ["gptq"]}, ["known: awq, gptq"]),
        ({"bits": 3}, ["quantization_config: 'bits' is 3", "expected 2, 4, 8"]),
        ({"bits": None}, ["'bits' is missing"]),
        ({"bits": "4"}, ["'bits' is '4'", "a whole number"]),
        ({"group_size": 0}, ["'group_size' is 0", "-1: all of a row"]),
        ({"group_size": -2}, ["'group_size' is -2"]),
        ({"sym": "yes"}, ["'sym' is 'yes'", "true or false"]),
        ({"checkpoint_format": "marlin"}, ["'checkpoint_format' is 'marlin'", "one of gptq, gptq_v2"]),
        ({"format": "bitblas"}, ["'format' is 'bitblas'"]),
        ({"is_marlin_format": True}, ["'is_marlin_format' is True"]),
        ({"pack_dtype": "int16"}, ["'pack_dtype' is 'int16'", "int32"]),
        ({"dynamic": {"+:.*down_proj": {"bits": 8}}}, ["'dynamic' is", "one format for all packed modules"]),
        ({"dynamic": "all"}, ["'dynamic' is 'all'", "a table"]),
        ({"adapter": {"lora": {"rank": 32}}}, ["'adapter' is", "not read"]),
        ({**AWQ, "version": "gemv"}, ["'version' is 'gemv'", "'gemm'"]),
        ({**AWQ, "version": "marlin"}, ["'version' is 'marlin'"]),
        ({**AWQ, "backend": "llm-awq"}, ["'llm-awq'", "'autoawq'"]),
        ({**AWQ, "bits": 8}, ["'bits' is 8; expected 4"]),
        ({"bits": 8}, ["qweight' is [8, 128] INT32; expected [16, 128] INT32"]),
        ({"group_size": 16}, ["qzeros' is [2, 16] INT32; expected [4, 16] INT32"]),
    ],
)  # fmt: skip
def test_a_format_that_is_not_read_is_refused_by_name(
    change: dict[str, Any], words: list[str], refused: Pair, tmp_path: Path
) -> None:
    checkpoint = Checkpoint.open(refused.packed)
    config = {**checkpoint.config, "quantization_config": {**GPTQ, **change}}
    with pytest.raises(CheckpointError) as caught:
        Decoder().export(Checkpoint("test", tmp_path, config, {}, checkpoint.tensors, {}))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["4", "gptq_v2", "gemm", "int32", ""])
)
NESTED = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner))


@settings(deadline=None)
@given(st.sampled_from([GPTQ, AWQ]), st.data())
def test_whatever_a_configuration_holds_it_is_read_or_refused(base: dict[str, Any], data: st.DataObject) -> None:
    keys = [*base, "checkpoint_format", "format", "pack_dtype", "dynamic", "adapter", "is_marlin_format", "backend"]
    table = base | data.draw(st.dictionaries(st.sampled_from(keys), NESTED, max_size=3))
    with contextlib.suppress(CheckpointError):
        packing = read_packing(Config({"quantization_config": table}, where="config.json"))
        assert packing is not None
        assert packing.expected(128, 64)["scales"].shape[1] == 128


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("refused"), GPTQ)


@pytest.mark.parametrize(
    ("part", "array", "expected"),
    [
        ("qweight", np.zeros((8, 64), np.int32), "is [8, 64] INT32; expected [8, 128] INT32"),
        ("qweight", np.zeros((8, 128), np.int64), "is [8, 128] INT64; expected [8, 128] INT32"),
        ("qzeros", None, "is absent; expected [2, 16] INT32"),
        ("scales", np.zeros((2, 128), np.float64), "is [2, 128] DOUBLE; expected [2, 128] BFLOAT16, FLOAT16 or FLOAT"),
        ("g_idx", np.zeros(63, np.int32), "is [63] INT32; expected [64] INT32"),
        ("g_idx", np.full(64, 2, np.int32), "names group 2; there are 2"),
        ("g_idx", np.full(64, -1, np.int32), "names group -1; there are 2"),
        ("weight", np.zeros((128, 64), np.float32), "has no place in a 'llama'"),
        ("shift", np.zeros(3, np.float32), "has no place in a 'llama'"),
    ],
)
def test_a_packed_module_with_other_tensors_is_refused(
    part: str, array: np.ndarray | None, expected: str, tmp_path: Path
) -> None:
    made = pair(tmp_path, GPTQ)
    _change_tensors(made.packed, **{f"{QUERY}.{part}": array})
    message = _refusal(made)
    assert f"tensor '{QUERY}.{part}'" in message
    assert expected in message


def test_packed_weights_that_no_configuration_speaks_of_are_named(tmp_path: Path) -> None:
    made = pair(tmp_path, GPTQ)
    change_config(made.packed, None)
    assert "q_proj.qweight' is there, and config.json has no 'quantization_config')" in _refusal(made)


def test_zero_points_that_are_not_symmetric_as_said_are_refused_when_they_are_read(tmp_path: Path) -> None:
    made = pair(tmp_path, {**GPTQ, "sym": False})
    change_config(made.packed, sym=True)
    with pytest.raises(CheckpointError, match=r"qzeros' has a zero point of \d+; 'sym': true means 8 everywhere"):
        build(made.packed, output=tmp_path / "model.edge", recipe=Recipe())
    assert not (tmp_path / "model.edge").exists()


def _change_tensors(folder: Path, **changes: np.ndarray | None) -> None:
    path = folder / "model.safetensors"
    tensors = {**load_file(path), **changes}
    save_file({name: array for name, array in tensors.items() if array is not None}, path)


def _refusal(made: Pair) -> str:
    with pytest.raises(CheckpointError) as caught:
        made.export()
    assert "\n" not in str(caught.value)
    return str(caught.value)
