"""tests: tiny models that are walked through, and what the whole graph says."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import parity
import tiny
from calibrated import sequences
from edgewise.checkpoint import Checkpoint
from edgewise.graph import get_facts
from edgewise.writer import write_model
from edgewise_exporters.decoder import Decoder

FAMILIES = ("gemma2", "llama", "olmo2", "phi3", "qwen2", "qwen3")

TOKENS = sequences(tiny.VOCABULARY)


def checkpoint(family: str, home: Path, name: str = "", **overrides: Any) -> Path:
    """A tiny checkpoint, made on first use."""
    folder = home / f"{family}{name}"
    return folder if folder.exists() else tiny.checkpoint(family, folder, **overrides)


def export(family: str, home: Path, name: str = "", **overrides: Any) -> ir.Model:
    return Decoder().export(Checkpoint.open(checkpoint(family, home, name, **overrides)))


def whole(model: ir.Model, tokens: np.ndarray, names: Sequence[str], folder: Path) -> dict[str, np.ndarray]:
    """Values of the whole graph in one run."""
    values = {str(value.name): value for node in model.graph for value in node.outputs}
    original = list(model.graph.outputs)
    model.graph.outputs.extend(values[name] for name in names if values[name] not in original)
    write_model(model, folder / "whole.onnx")
    del model.graph.outputs[len(original) :]
    feeds = {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "position_ids": np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape).copy(),
    }
    for layer, a in enumerate(get_facts(model).attention):
        empty = np.zeros((len(tokens), a.kv_heads, 0, a.head_dim), np.float32)
        feeds |= {f"past_key_values.{layer}.{part}": empty for part in ("key", "value")}
    results = parity.load(folder / "whole.onnx").run(list(names), feeds)
    return dict(zip(names, results, strict=True))
