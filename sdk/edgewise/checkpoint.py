"""sdk: a Hugging Face checkpoint: its configuration, its tensors on disk, and the files that travel with a bundle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import CheckpointError
from edgewise.safetensors import read_tensors
from edgewise.tensors import Streamed

COMPANIONS = (
    "LICENSE",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in the form that Hugging Face libraries save; nothing of it is executed, and no weight is read
    before it is asked for."""

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]  # generation_config.json; empty where there is none
    tensors: Mapping[str, Streamed]  # in the dtype of the file
    companions: Mapping[str, Path]

    @classmethod
    def open(cls, source: str | Path) -> "Checkpoint":
        folder = Path(source)
        if not folder.is_dir():
            raise CheckpointError(f"no checkpoint at {folder}")
        index = folder / "model.safetensors.index.json"
        names = ["model.safetensors"]
        if index.exists():
            names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        tensors: dict[str, Streamed] = {}
        for name in names:
            tensors |= read_tensors(folder / name)
        companions = {name: folder / name for name in COMPANIONS if (folder / name).is_file()}
        config, generation = (
            json.loads(companions[name].read_text("utf-8")) if name in companions else {}
            for name in ("config.json", "generation_config.json")
        )
        return cls(folder, config, generation, tensors, companions)
