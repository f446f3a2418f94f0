"""tests: a checkpoint is read as its library saved it, and nothing outside of it is."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgewise import strictjson
from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError

WEIGHTS = {
    "model.norm.weight": np.ones(4, ml_dtypes.bfloat16),
    "model.embed_tokens.weight": np.arange(32, dtype=ml_dtypes.bfloat16).reshape(8, 4),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of one file."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file(WEIGHTS, folder / "model.safetensors")
    return folder


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same checkpoint in two shards."""
    (folder / "model.safetensors").unlink()
    write_index(folder, {name: f"model-{i}-of-2.safetensors" for i, name in enumerate(WEIGHTS, 1)})
    for i, (name, weight) in enumerate(WEIGHTS.items(), 1):
        save_file({name: weight}, folder / f"model-{i}-of-2.safetensors")
    return folder


def write_index(folder: Path, weight_map: Any) -> None:
    content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def refused(source: Path | str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        Checkpoint.open(source)
    assert str(caught.value).isprintable()


def test_the_demo_checkpoint_opens(pycoder: Path) -> None:
    checkpoint = Checkpoint.open(pycoder)
    assert checkpoint.name == "pycoder"
    assert checkpoint.config["model_type"] == "llama"
    assert set(checkpoint.companions) >= {"config.json", "generation_config.json", "tokenizer.json"}
    assert list(checkpoint.tensors) == sorted(checkpoint.tensors)
    for name, weight in load_file(pycoder / "model.safetensors").items():
        np.testing.assert_array_equal(checkpoint.tensors[name].numpy(), weight)


def test_shards_are_one_set_of_tensors(sharded: Path) -> None:
    tensors = Checkpoint.open(sharded).tensors
    assert tensors.keys() == WEIGHTS.keys()
    for name, weight in WEIGHTS.items():
        np.testing.assert_array_equal(tensors[name].numpy(), weight)


def test_what_a_checkpoint_leaves_out_is_empty(folder: Path) -> None:
    checkpoint = Checkpoint.open(str(folder))
    assert checkpoint.generation == {}
    assert set(checkpoint.companions) == {"config.json"}


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "there is no folder .*absent")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file; a checkpoint is a folder")


def test_a_folder_without_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, "has no config.json")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "expected a JSON object, got list"),
        (b'{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' is there twice"),
        (b'{"rope_theta": NaN}', "NaN is not a JSON number"),
        (b'{"rope_theta": -Infinity}', "-Infinity is not a JSON number"),
        (b'{"rope_theta": 1e400}', "the number 1e400 is out of range"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b'{"a": ' * 100_000, "nested too deep"),
        (b'{"a": "' + b"a" * (16 << 20) + b'"}', "larger than"),
    ],
)
def test_a_file_that_is_not_strict_json_is_refused(sharded: Path, name: str, content: bytes, message: str) -> None:
    (sharded / name).write_bytes(content)
    refused(sharded, f"{name}: {message}")


@pytest.mark.parametrize("text", ['{"a": [1, -2.5e-3, true, null, "\\u00e9"], "b": {"c": {}}}', "[0.1, 1e308]", '""'])
def test_strict_json_is_json(text: str) -> None:
    assert strictjson.loads(text.encode()) == json.loads(text)


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-2-of-2.safetensors").unlink()
    refused(sharded, "model-2-of-2.safetensors is missing; model.safetensors.index.json lists it")


def test_a_tensor_that_only_the_index_lists_is_named(sharded: Path) -> None:
    save_file({"other": np.ones(1, np.float32)}, sharded / "model-1-of-2.safetensors")
    refused(sharded, "model-1-of-2.safetensors disagree: tensor 'model.norm.weight' is not in it")


def test_a_tensor_that_no_index_lists_is_named(sharded: Path) -> None:
    save_file({**WEIGHTS}, sharded / "model-2-of-2.safetensors")
    refused(sharded, "model-2-of-2.safetensors disagree: tensor 'model.norm.weight' is in it unlisted")


@pytest.mark.parametrize("weight_map", [None, [], {"a": 1}, {"a": None}])
def test_an_index_without_a_weight_map_is_refused(sharded: Path, weight_map: Any) -> None:
    write_index(sharded, weight_map)
    refused(sharded, "has no weight_map")


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors",
        "/etc/secret.safetensors",
        "a/b.safetensors",
        "..",
        "",
        "a\\b.safetensors",
        "a\0.safetensors",
        "x.bin",
    ],
)
def test_a_shard_elsewhere_is_refused(sharded: Path, shard: str) -> None:
    save_file(WEIGHTS, sharded.parent / "secret.safetensors")
    write_index(sharded, dict.fromkeys(WEIGHTS, shard))
    refused(sharded, "which is not a plain name of a safetensors file")


def link_out(path: Path) -> None:
    outside = path.parent.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("absent")


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (link_out, "is a link out of the checkpoint, to .*outside: it is not followed"),
        (link_to_nothing, "is a link to a file that does not exist"),
        (link_to_itself, "cannot be read|link"),
        (make_fifo, "is not a regular file"),
        (make_folder, "is not a regular file"),
    ],
)
def test_only_regular_files_of_the_checkpoint_are_read(
    folder: Path, name: str, change: Callable[[Path], None], message: str
) -> None:
    (folder / "tokenizer.json").write_text("{}")
    change(folder / name)
    refused(folder, f"{name} ({message})")


def test_a_shard_that_links_out_is_refused(sharded: Path) -> None:
    link_out(sharded / "model-1-of-2.safetensors")
    refused(sharded, "is a link out of the checkpoint")


def test_a_link_within_the_checkpoint_is_followed(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    assert Checkpoint.open(folder).tensors.keys() == WEIGHTS.keys()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, f"only pickled weights \\({name}\\), which can run code")


def test_an_adapter_is_not_taken_for_a_model(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "training_args.bin").write_bytes(b"")
    refused(folder, "it has adapter_model.safetensors, which is not a whole model")


def test_a_truncated_file_is_refused_by_name(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", (folder / "model.safetensors").stat().st_size - 1)
    refused(folder, "model.safetensors: the file is truncated")


@pytest.fixture
def cache(folder: Path, tmp_path: Path) -> Path:
    """The checkpoint in a cache of huggingface_hub, as org/tiny."""
    repository = tmp_path / "cache" / "models--org--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    for part in (snapshot, repository / "blobs", repository / "refs"):
        part.mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    for i, path in enumerate(sorted(folder.iterdir())):
        path.rename(repository / "blobs" / str(i))
        (snapshot / path.name).symlink_to(f"../../blobs/{i}")
    return tmp_path / "cache"


def test_a_snapshot_in_a_hub_cache_is_followed_to_its_blobs(cache: Path) -> None:
    [snapshot] = cache.glob("*/snapshots/*")
    checkpoint = Checkpoint.open(snapshot)
    assert checkpoint.tensors.keys() == WEIGHTS.keys()
    assert not any(path.is_symlink() for path in checkpoint.companions.values())


def test_a_snapshot_that_links_to_another_repository_is_refused(cache: Path) -> None:
    [config] = cache.glob("*/snapshots/*/config.json")
    other = cache / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    config.resolve().rename(other / "0")
    config.unlink()
    config.symlink_to(other / "0")
    refused(config.parent, "is a link out of the checkpoint")


OPEN = """
import sys
from edgewise.checkpoint import Checkpoint
from edgewise.errors import EdgewiseError
if sys.argv[2:] == ["without"]:
    sys.modules["huggingface_hub"] = None
try:
    checkpoint = Checkpoint.open(sys.argv[1])
    print(checkpoint.name, *checkpoint.tensors)
except EdgewiseError as error:
    print(type(error).__name__, error)
"""


def open_elsewhere(*arguments: str, **environment: str) -> str:
    """What a process of its own says about a checkpoint: the hub's settings are read once."""
    command = [sys.executable, "-c", OPEN, *arguments]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_a_model_of_the_hub_is_found_in_its_cache(cache: Path) -> None:
    said = open_elsewhere("org/tiny", HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1")
    assert said == "org/tiny model.embed_tokens.weight model.norm.weight"


def test_a_hub_that_does_not_answer_is_one_line(cache: Path) -> None:
    said = open_elsewhere("org/other", HF_HUB_CACHE=str(cache), HF_ENDPOINT="http://127.0.0.1:9")
    assert said.startswith("CheckpointError there is no folder org/other, and the hub did not give it: ")
    assert "\n" not in said


def test_a_hub_without_its_library_names_the_extra() -> None:
    assert "pip install 'edgewise[build]'" in open_elsewhere("org/tiny", "without")
