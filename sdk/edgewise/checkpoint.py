"""sdk: a Hugging Face checkpoint: its configuration, its tensors on disk, and the files that go with them.

Nothing of a checkpoint is executed, and no file outside of it is read. Its files are plain names in one folder; a
link is followed only where its target is inside that folder, or, for a snapshot in a Hugging Face cache, among the
`blobs` of the same repository (`models--org--name/snapshots/REVISION/config.json -> ../../blobs/...`): whoever wrote
the snapshot wrote these too.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise import hub, strictjson
from edgewise.errors import CheckpointError
from edgewise.safetensors import read_tensors
from edgewise.tensors import Streamed

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
COMPANIONS = (
    "LICENSE",
    "chat_template.jinja",
    CONFIG,
    GENERATION,
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
SENTENCE = (  # by which sentence-transformers says how a text becomes a vector: see edgewise.sentence
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "*_Pooling/config.json",
)

CONFIG_BYTES = 1 << 20
INDEX_BYTES = 16 << 20
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds: plain data, lazy tensors, and paths."""

    name: str  # the hub id, or the name of the folder
    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]  # generation_config.json; empty where there is none
    tensors: Mapping[str, Streamed]  # by name, sorted; in the dtype of the file
    companions: Mapping[str, Path]  # of COMPANIONS those that are there, links resolved

    @classmethod
    def open(cls, source: str | Path) -> "Checkpoint":
        """A local folder, or a model on the Hugging Face hub: "org/name".

        Every header and the configuration are read and checked; no weight is. Raises CheckpointError, which names
        the file.
        """
        name, folder = _locate(source)
        companions = {name: path for name in COMPANIONS if (path := _file(folder, name))}
        if CONFIG not in companions:
            raise CheckpointError(f"{folder} has no {CONFIG}: it is not a checkpoint in the Hugging Face format")
        config = _read_json(companions[CONFIG], CONFIG_BYTES)
        generation = _read_json(companions[GENERATION], CONFIG_BYTES) if GENERATION in companions else {}
        tensors = dict(sorted(_read_weights(folder).items()))
        return cls(name, folder, config, generation, tensors, companions)

    def other(self, name: str) -> Any:
        """What another JSON file of the folder says; None where there is none. Raises CheckpointError."""
        path = _file(self.folder, name)
        return _read_json(path, CONFIG_BYTES, strictjson.loads) if path else None

    def table(self, name: str) -> Mapping[str, Any]:
        """What another file says, which is an object; empty where there is none."""
        found = self.other(name)
        if not isinstance(found, dict | None):
            raise CheckpointError(f"{self.folder / name}: expected a JSON object, got {type(found).__name__}")
        return found or {}


def _locate(source: str | Path) -> tuple[str, Path]:
    folder = Path(source)
    if folder.is_dir():
        return folder.resolve().name, folder
    if folder.exists():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder with {CONFIG} and {WEIGHTS}")
    if isinstance(source, str) and hub.is_id(source):
        return source, hub.download(source, (*COMPANIONS, *SENTENCE, WEIGHTS, INDEX, "model-*.safetensors"))
    raise CheckpointError(f"there is no folder {folder}; a model on the Hugging Face hub is named org/name")


def _file(folder: Path, name: str) -> Path | None:
    """The regular file behind a name in the folder, None where there is none. Raises CheckpointError for others."""
    path = folder / name
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        if path.is_symlink():
            raise CheckpointError(f"{path} is a link to a file that does not exist") from None
        return None
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not any(real.is_relative_to(root) for root in _roots(folder)):
        raise CheckpointError(f"{path} is a link out of the checkpoint, to {real}: it is not followed")
    if not real.is_file():
        raise CheckpointError(f"{path} is not a regular file")
    return real


def _roots(folder: Path) -> list[Path]:
    """The folders that a link may lead to."""
    root = folder.resolve()
    is_snapshot = root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--")
    return [root, root.parent.parent / "blobs"] if is_snapshot else [root]


def _read_json(path: Path, limit: int, loads: Callable[[bytes], Any] = strictjson.loads_object) -> Any:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"larger than {limit:,} bytes")
        return loads(content)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read_weights(folder: Path) -> dict[str, Streamed]:
    if path := _file(folder, WEIGHTS):
        return read_tensors(path)
    if path := _file(folder, INDEX):
        return _read_shards(folder, path)
    raise _no_weights(folder)


def _no_weights(folder: Path) -> CheckpointError:
    names = sorted(path.name for path in folder.iterdir())
    tensors = [name for name in names if name.endswith(".safetensors")]
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    if pickled and not tensors:
        problem = f"only pickled weights ({pickled[0]}), which can run code and are not read"
        return CheckpointError(f"{folder} has {problem}; save it with save_pretrained of transformers 5, or convert it")
    others = f"; it has {', '.join(tensors[:3])}, which is not a whole model" if tensors else ""
    return CheckpointError(f"{folder} has neither {WEIGHTS} nor {INDEX}{others}")


def _read_shards(folder: Path, index: Path) -> dict[str, Streamed]:
    """The tensors of all shards; the index and the headers must say the same."""
    weight_map = _read_json(index, INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index} has no weight_map, from names of tensors to names of files")
    tensors: dict[str, Streamed] = {}
    for shard in sorted(set(weight_map.values())):
        held = read_tensors(_shard(folder, index, shard))
        listed = {name for name, of in weight_map.items() if of == shard}
        for names, problem in (
            (listed - held.keys(), "is not in it"),
            (held.keys() - listed, "is in it unlisted, or in another shard too"),
        ):
            if names:
                more = f" ({len(names)} such tensors)" if len(names) > 1 else ""
                raise CheckpointError(f"{index} and {shard} disagree: tensor {min(names)!r:.200} {problem}{more}")
        tensors |= held
    return tensors


def _shard(folder: Path, index: Path, name: str) -> Path:
    if not SHARD.fullmatch(name):
        raise CheckpointError(f"{index} names the shard {name!r:.80}, which is not a plain name of a safetensors file")
    if path := _file(folder, name):
        return path
    raise CheckpointError(f"{folder / name} is missing; {index.name} lists it: download the checkpoint again")
