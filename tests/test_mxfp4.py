"""tests: experts in MXFP4 are the floats that transformers makes of them, and are read as they are asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import parity
from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.graph import linears
from edgewise.sizes import CHECKPOINT_BYTES
from edgewise_exporters.decoder import Decoder

PARTS = ("gate_up_proj", "down_proj")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint with packed experts, and the same one with the floats that transformers makes of them."""
    source = parity.oracle("gpt_oss", tmp_path_factory.getbasetemp()).checkpoint
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    packed, floats = dict(tensors), dict(tensors)
    generator = torch.Generator().manual_seed(3)
    for name in [name for name in tensors if name.endswith(PARTS)]:
        experts, inputs, outputs = tensors[name].shape
        blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), generator=generator, dtype=torch.uint8)
        scales = torch.randint(122, 126, blocks.shape[:3], generator=generator, dtype=torch.uint8)
        del packed[name]
        packed |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        floats[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
    config = json.loads((source / "config.json").read_text())
    found = {}
    for kind, content in (("packed", packed), ("floats", floats)):
        found[kind] = tmp_path_factory.mktemp(kind)
        safetensors.torch.save_file(content, found[kind] / "model.safetensors")
        more = {"quantization_config": {"quant_method": "mxfp4"}} if kind == "packed" else {}
        (found[kind] / "config.json").write_text(json.dumps(config | more))
    return found


def test_packed_experts_are_the_floats_of_transformers(folders: dict[str, Path]) -> None:
    models = {kind: Decoder().export(Checkpoint.open(folder)) for kind, folder in folders.items()}
    pairs = zip(linears(models["packed"]), linears(models["floats"]), strict=True)
    for ours, theirs in pairs:
        assert (ours.name, ours.role, ours.expert) == (theirs.name, theirs.role, theirs.expert)
        np.testing.assert_array_equal(ours.matrix.numpy(), theirs.matrix.numpy())


def test_any_rows_of_them_are_those_rows(folders: dict[str, Path]) -> None:
    for linear in linears(Decoder().export(Checkpoint.open(folders["packed"]))):
        if linear.expert == 2 and linear.layer == 1:
            whole = linear.matrix.numpy()
            np.testing.assert_array_equal(linear.matrix.read(3, 17), whole[3:17])
            assert linear.matrix.meta[CHECKPOINT_BYTES] == whole.size * 17 // 32


def test_a_scale_that_is_absent_is_named(folders: dict[str, Path]) -> None:
    checkpoint = Checkpoint.open(folders["packed"])
    del checkpoint.tensors["model.layers.1.mlp.experts.down_proj_scales"]  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match=r"experts.down_proj_scales' is absent; expected \[6, 64, 1\] UINT8"):
        Decoder().export(checkpoint)
