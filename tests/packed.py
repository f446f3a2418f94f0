"""tests: checkpoints that somebody else quantized: floats rounded and packed the slow way, one code at a time.

Written from the layouts' descriptions, not from the reader: a code goes into its word by an addition of Python's.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import tiny
from edgewise.checkpoint import Checkpoint
from edgewise_exporters.decoder import Decoder

GPTQ: dict[str, Any] = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": False}
ACT_ORDER = {**GPTQ, "desc_act": True}
AWQ: dict[str, Any] = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}
QUERY = "model.layers.1.self_attn.q_proj"
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the outputs of a word, from its low bits on


@dataclass(frozen=True)
class Coded:
    """A matrix `[out, in]` in codes; `groups` is the group of each column."""

    codes: NDArray[np.int64]  # [out, in]
    zero_points: NDArray[np.int64]  # [out, groups]
    scales: NDArray[np.float16]  # [out, groups]
    groups: NDArray[np.int32]  # [in]

    def floats(self) -> NDArray[np.float32]:
        """The published formula."""
        steps = (self.codes - self.zero_points[:, self.groups]).astype(np.float32)
        floats: NDArray[np.float32] = steps * self.scales[:, self.groups].astype(np.float32)
        return floats


def rounded(
    weight: NDArray[np.float32], *, bits: int, group_size: int, symmetric: bool = False, order: Any = None
) -> Coded:
    """Rounded to nearest in groups of columns; `order` takes columns into groups out of their order."""
    rows, columns = weight.shape
    size, top = columns if group_size == -1 else group_size, 2**bits - 1
    groups = (np.arange(columns) if order is None else np.argsort(order)) // size
    count = int(groups.max()) + 1
    scales, zeros = np.zeros((rows, count), np.float16), np.zeros((rows, count), np.int64)
    for group in range(count):
        part = weight[:, groups == group]
        low, high = np.minimum(part.min(axis=1), 0), np.maximum(part.max(axis=1), 0)
        if symmetric:
            scales[:, group], zeros[:, group] = 2 * np.maximum(-low, high) / top, 2 ** (bits - 1)
        else:
            scales[:, group] = (high - low) / top
            zeros[:, group] = np.clip(np.round(-low / scales[:, group]), 0, top)
    steps = np.round(weight / scales[:, groups].astype(np.float32))
    codes = np.clip(steps + zeros[:, groups], 0, top).astype(np.int64)
    return Coded(codes, zeros, scales, groups.astype(np.int32))


def gptq(coded: Coded, *, bits: int, version: int = 1) -> dict[str, NDArray[Any]]:
    """The tensors of a GPTQ module; version 1 subtracts one from zero points, word by word."""
    ones = sum(1 << shift for shift in range(0, 32, bits)) if version == 1 else 0
    return {
        "qweight": _words(coded.codes, bits).T,
        "qzeros": _words(coded.zero_points.T, bits, less=ones),
        "scales": coded.scales.T,
        "g_idx": coded.groups,
    }


def awq(coded: Coded) -> dict[str, NDArray[Any]]:
    """The tensors of an AWQ module in the layout "gemm"."""
    return {
        "qweight": _words(coded.codes.T, 4, AWQ_ORDER),
        "qzeros": _words(coded.zero_points.T, 4, AWQ_ORDER),
        "scales": coded.scales.T,
    }


def _words(codes: NDArray[np.int64], bits: int, order: tuple[int, ...] | None = None, less: int = 0) -> NDArray[Any]:
    """int32 `[rows, columns * bits / 32]`; the last word is filled up with zeros."""
    per = 32 // bits
    words: list[list[int]] = []
    for row in codes.tolist():
        row += [0] * (-len(row) % per)
        words.append([])
        for start in range(0, len(row), per):
            word = sum(row[start + (order or range(per))[i]] << bits * i for i in range(per))
            words[-1].append((word - less) % 2**32)
    return np.array(words, np.uint32).view(np.int32)


def pack_checkpoint(
    floats: Path, packed: Path, twin: Path, config: Mapping[str, Any], *, keep: tuple[str, ...] = ()
) -> None:
    """Two copies of a checkpoint: its layers packed as `config` says, and with the floats that this stands for."""
    tensors = load_file(floats / "model.safetensors")
    coded, plain = dict(tensors), dict(tensors)
    random, orders = np.random.default_rng(0), dict[int, NDArray[np.int64]]()
    for name, weight in tensors.items():
        module = name.removesuffix(".weight")
        if not module.endswith("_proj") or any(part in name for part in keep):
            continue
        order = orders.setdefault(weight.shape[1], random.permutation(weight.shape[1]))
        bits, symmetric = config["bits"], config.get("sym", False)
        matrix = rounded(
            weight,
            bits=bits,
            group_size=config["group_size"],
            symmetric=symmetric,
            order=order if config.get("desc_act") else None,
        )
        version = 2 if config.get("checkpoint_format") == "gptq_v2" else 1
        parts = awq(matrix) if config["quant_method"] == "awq" else gptq(matrix, bits=bits, version=version)
        del coded[name]
        coded |= {f"{module}.{part}": np.ascontiguousarray(array) for part, array in parts.items()}
        plain[name] = matrix.floats()
    for folder, saved in ((packed, coded), (twin, plain)):
        shutil.copytree(floats, folder)
        save_file(saved, folder / "model.safetensors", metadata={"format": "pt"})
    text = json.loads((floats / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps({**text, "quantization_config": dict(config)}))


@dataclass(frozen=True)
class Pair:
    """A packed checkpoint, and one of the floats that its codes stand for."""

    packed: Path
    twin: Path

    def export(self) -> ir.Model:
        return Decoder().export(Checkpoint.open(self.packed))


def pair(folder: Path, config: Mapping[str, Any], family: str = "llama", keep: tuple[str, ...] = ()) -> Pair:
    floats = tiny.checkpoint(family, folder / "floats", num_hidden_layers=2)
    made = Pair(folder / "packed", folder / "twin")
    pack_checkpoint(floats, made.packed, made.twin, config, keep=keep)
    return made


def change_config(folder: Path, table: Mapping[str, Any] | None = GPTQ, **changes: Any) -> None:
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "quantization_config": table and {**table, **changes}}
    path.write_text(json.dumps(config))
