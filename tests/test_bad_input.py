"""tests: the command line on bad input: one clear line, a non-zero exit, and nothing left behind."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest

from edgewise.cli.main import execute

CODE = "from edgewise.cli.main import main; main()"


@dataclass(frozen=True)
class Bad:
    """A wrong input: a command in a folder with `checkpoint/` and `model.edge/`, and how one of them is spoilt."""

    command: str
    says: str
    spoil: Callable[[Path], object] = lambda folder: None
    stdin: bytes = b""


def config(**changes: Any) -> Callable[[Path], object]:
    """Other values in the checkpoint's config.json."""

    def spoil(folder: Path) -> None:
        path = folder / "checkpoint/config.json"
        path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")

    return spoil


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Another header in the checkpoint's safetensors file; the data stays."""

    def spoil(folder: Path) -> None:
        path = folder / "checkpoint/model.safetensors"
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        tensors = json.loads(content[8 : 8 + length])
        change(tensors)
        text = json.dumps(tensors).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return spoil


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Another content of the checkpoint's safetensors file."""

    def spoil(folder: Path) -> None:
        path = folder / "checkpoint/model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def shards(second: str) -> Callable[[Path], object]:
    """The checkpoint in shards, of which there is only the first."""

    def spoil(folder: Path) -> None:
        first = "model-00001-of-00002.safetensors"
        content = (folder / "checkpoint/model.safetensors").read_bytes()
        tensors = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
        tensors.pop("__metadata__", None)
        (folder / "checkpoint/model.safetensors").rename(folder / "checkpoint" / first)
        index = {"weight_map": dict.fromkeys(tensors, first) | {"model.more": second}}
        (folder / "checkpoint/model.safetensors.index.json").write_text(json.dumps(index), "utf-8")

    return spoil


def recipe(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "recipe.toml").write_text(text, "utf-8")


def flip(name: str) -> Callable[[Path], object]:
    """One bit changed in the middle of a file of the bundle."""

    def spoil(folder: Path) -> None:
        path = folder / "model.edge" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return spoil


NORM = "model.layers.3.input_layernorm.weight"
DOWN = "model.layers.3.mlp.down_proj.weight"
EMPTY = {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}
BUILD = "build checkpoint -o new.edge"

BAD = {
    "a folder that is missing": Bad("build absent -o new.edge", "there is no folder absent"),
    "no config": Bad(BUILD, "config.json", lambda folder: (folder / "checkpoint/config.json").unlink()),
    "a config that is not JSON": Bad(
        BUILD, "config.json", lambda folder: (folder / "checkpoint/config.json").write_text("{", "utf-8")
    ),
    "an unknown model type": Bad(
        BUILD, "no model_type is named 'lama'; did you mean 'llama'?", config(model_type="lama")
    ),
    "an unknown rope type": Bad(
        BUILD, "'spiral'", config(rope_parameters={"rope_type": "spiral", "rope_theta": 10000.0})
    ),
    "a quantized checkpoint": Bad(BUILD, "quantization_config", config(quantization_config={"quant_method": "gptq"})),
    "a missing shard": Bad(BUILD, "model-00002-of-00002.safetensors", shards("model-00002-of-00002.safetensors")),
    "a shard outside of the checkpoint": Bad(BUILD, "../secret.safetensors", shards("../secret.safetensors")),
    "truncated weights": Bad(BUILD, "model.safetensors", weights(lambda content: content[:-1000])),
    "a header longer than the file": Bad(
        BUILD, "model.safetensors", weights(lambda content: struct.pack("<Q", 1 << 40) + content[8:])
    ),
    "tensors that overlap": Bad(
        BUILD, "model.safetensors", header(lambda tensors: tensors[NORM].update(data_offsets=[0, 512]))
    ),
    "a wrong shape": Bad(BUILD, DOWN, header(lambda tensors: tensors[DOWN].update(shape=[768, 256]))),
    "a wrong dtype": Bad(BUILD, NORM, header(lambda tensors: tensors[NORM].update(dtype="I16"))),
    "an absent tensor": Bad(BUILD, NORM, header(lambda tensors: tensors.update({f"{NORM}2": tensors.pop(NORM)}))),
    "an extra tensor": Bad(
        BUILD,
        "model.extra",
        header(
            lambda tensors: tensors.update({"model.extra": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}})
        ),
    ),
    "a small tensor that holds no numbers": Bad(
        BUILD, "'model.norm.weight' holds NaN", weights(lambda content: content[:-512] + b"\xff" * 512)
    ),
    "a matrix that holds no numbers": Bad(
        BUILD, "NaN", weights(lambda content: content[:4_000_000] + b"\xff" * 512 + content[4_000_512:])
    ),
    "an output that exists": Bad(
        BUILD, "new.edge exists; to replace it, use --force", lambda folder: (folder / "new.edge").mkdir()
    ),
    "an unknown target": Bad(f"{BUILD} --target cpu-x46", "no target is named 'cpu-x46'; did you mean 'cpu-x64'?"),
    "a profile that is missing": Bad(f"{BUILD} --target board.toml", "board.toml"),
    "a recipe that is missing": Bad(f"{BUILD} --recipe recipe.toml", "recipe.toml"),
    "a recipe that is not TOML": Bad(f"{BUILD} --recipe recipe.toml", "recipe.toml", recipe("[[step")),
    "an unknown pass": Bad(
        f"{BUILD} --recipe recipe.toml",
        "no pass is named 'quantise'; did you mean 'quantize'?",
        recipe('[[step]]\npass = "quantise"\n'),
    ),
    "an unknown option of a pass": Bad(
        f"{BUILD} --recipe recipe.toml",
        "no option is named 'bit'; did you mean 'bits'?",
        recipe('[[step]]\npass = "quantize"\nbit = 4\n'),
    ),
    "an impossible option of a pass": Bad(
        f"{BUILD} --recipe recipe.toml", "bits: 5 is not one of", recipe('[[step]]\npass = "quantize"\nbits = 5\n')
    ),
    "a context beyond the model's": Bad(f"{BUILD} --context 4096", "1024"),
    "a key to ignore that is not there": Bad(f"{BUILD} --ignore-config rope_thta", "has no key 'rope_thta'"),
    "an unknown exporter": Bad("export checkpoint -o graph --exporter decodr", "did you mean 'decoder'?"),
    "a bundle that is missing": Bad("inspect absent.edge", "there is no bundle at absent.edge"),
    "a folder that is no bundle": Bad("verify checkpoint", "is not a bundle"),
    "damaged weights": Bad("verify model.edge", "model.onnx_data", flip("onnx/model.onnx_data")),
    "a damaged graph": Bad("run model.edge x", "onnx/model.onnx", flip("onnx/model.onnx")),
    "a damaged tokenizer": Bad("run model.edge x", "tokenizer.json", flip("tokenizer.json")),
    "a damaged manifest": Bad("inspect model.edge", "manifest.json", flip("manifest.json")),
    "an empty prompt": Bad("run model.edge -", "the prompt is empty"),
    "a prompt longer than the context": Bad("run model.edge -", "the context is 1,024", stdin=b"x = 1\n" * 2000),
    "more tokens than the context": Bad("run model.edge x --max-tokens 1024", "the context is 1,024"),
    "a prompt that is not UTF-8": Bad("run model.edge -", "byte 2 is invalid", stdin=b"ab\xff"),
    "an argument that was not UTF-8": Bad("run model.edge ab\udcff", "at character 2"),
    "an unknown search": Bad("run model.edge x --search sampel", "did you mean 'sample'?"),
    "an unknown option of a search": Bad(
        "run model.edge x --search sample --set temprature=1", "did you mean 'temperature'?"
    ),
    "an impossible option of a search": Bad("run model.edge x --search sample --set top_p=2", "top_p is 2"),
    "no tokens at all": Bad("run model.edge x --max-tokens 0", "max_tokens is 0"),
    "a time limit of nothing": Bad("run model.edge x --time-limit 0", "time_limit is 0"),
    "a context beyond that of the model": Bad("run model.edge x --context 2048", "1024"),
    "a chat without a template": Bad("chat model.edge", "edgewise run model.edge"),
    "a bench of nothing": Bad("bench model.edge --runs 0", "runs is 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = BAD[case]
    bad.spoil(folder)
    before = sorted(folder.rglob("*"))
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(bad.stdin), "utf-8"))
    assert execute(bad.command.split()) == 1
    out, err = capfd.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert out == ""
    assert len(errors) == 1
    assert bad.says in errors[0]
    assert err.endswith(f"{errors[0]}\n")
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("onnx_ir", "build", "build checkpoint -o new.edge"),
        ("onnx_ir", "build", "export checkpoint -o graph"),
        ("huggingface_hub", "build", "build nobody/nothing -o new.edge"),
        ("onnxruntime", "cpu", "build checkpoint -o new.edge"),
        ("onnxruntime", "cpu", "run model.edge x"),
    ],
)
def test_a_missing_extra_is_named(package: str, extra: str, command: str, folder: Path) -> None:
    done = without(package, command)
    assert done.returncode == 1
    assert done.stderr == f"error: {package} is not installed; install it with: pip install 'edgewise[{extra}]'\n"
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "model.edge"]


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("onnx_ir", "passes"),
        ("onnx_ir", "run model.edge x --max-tokens 2"),
        ("rich", "build checkpoint -o new.edge"),
        ("onnxruntime", "build checkpoint -o new.edge --no-load-check"),
    ],
)
def test_what_does_not_need_an_extra_works_without_it(package: str, command: str, folder: Path) -> None:
    done = without(package, command)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def without(package: str, command: str) -> "subprocess.CompletedProcess[str]":
    """The command in a process where that package is not installed."""
    code = f"import sys; sys.modules[{package!r}] = None; {CODE}"
    return subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True, timeout=120)
