"""tests: what the exporter `optimum` does not take, in one line each, and what it keeps from a checkpoint."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewise.checkpoint import Checkpoint
from edgewise.contracts import Refusal
from edgewise.errors import CheckpointError, OptionError
from edgewise_exporters.optimum import Optimum, environment
from edgewise_exporters.optimum.child import forbid
from edgewise_exporters.optimum.tasks import task_of
from edgewise_exporters.optimum.workplace import Workplace
from optimum_bridge import VARIABLE, reconfigure


@pytest.fixture
def checkpoint(pycoder: Path, tmp_path: Path) -> Path:
    """A folder to call a checkpoint of another type."""
    return Path(shutil.copytree(pycoder, tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"auto_map": {"AutoModel": "model.Bert"}}, "code of the checkpoint (auto_map), which is not run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized (quantization_config) are not read by optimum"),
        ({"architectures": ["BertForMaskedLM"]}, "nothing runs an architecture like 'BertForMaskedLM'; known: ...ForC"),
        ({"architectures": None}, "config.json has no architectures"),
        ({"architectures": ["BertForCausalLM"]}, "does not export 'bert' for text-generation"),
        ({"architectures": ["GPT2DoubleHeadsModel"], "model_type": "gpt2"}, "like 'GPT2DoubleHeadsModel'"),
        ({"n_layer": 10**9}, "n_layer is 1000000000; at most 10,000 layers are exported"),
        ({"model_type": "clip"}, "exports no text model of type 'clip'"),
        ({"model_type": "t5", "architectures": ["T5Model"], "is_encoder_decoder": True}, "like 'T5Model'"),
    ],
)
def test_what_it_does_not_export_is_said_in_one_line(checkpoint: Path, change: dict[str, Any], says: str) -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"], **change}
    opened = reconfigure(checkpoint, config)
    verdict = task_of(opened)
    assert isinstance(verdict, Refusal)
    assert says in verdict.reason
    assert "\n" not in verdict.reason
    with pytest.raises(CheckpointError, match="config"):
        Optimum().export(opened)


def test_code_of_a_checkpoint_can_be_left_alone_where_transformers_knows_the_model(checkpoint: Path) -> None:
    change = {"model_type": "bert", "architectures": ["BertModel"], "auto_map": {"AutoModel": "model.Bert"}}
    refusal = task_of(reconfigure(checkpoint, change))
    assert isinstance(refusal, Refusal)
    assert refusal.reason.endswith("transformers knows 'bert' without it: --ignore-config auto_map")


def python(folder: Path, script: str) -> Path:
    """A program in the place of a Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


GOOD = json.dumps({name: f"{wanted}.0" for name, wanted in environment.VERSIONS.items()})


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '{}'", "has no optimum-onnx; to make one: python3 -m venv"),
        (f"echo '{GOOD.replace('4.57.0', '5.2.0')}'", "has transformers 5.2.0, where 4.57 is needed; to make one"),
        ("exit 3", "it does not run as a Python; to make one"),
        ("echo 5", "it does not run as a Python; to make one"),
        ("echo hello", "it does not run as a Python; to make one"),
    ],
)
def test_a_python_that_cannot_export_is_told_from_one_that_can(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(python(tmp_path, script)))
    with pytest.raises(OptionError) as caught:
        environment.find_python()
    assert says in str(caught.value)
    assert "pip install torch 'optimum-onnx[onnxruntime]==0.1.0'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_python_that_can_export_the_line_that_makes_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(OptionError, match=f"this Python has .*; to make one: .* export {VARIABLE}="):
        environment.find_python()
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    with pytest.raises(OptionError, match="is /nowhere/python: No such file or directory; to make one"):
        environment.find_python()


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('echo \'{"error": "it lacks the weight"}\'', "it lacks the weight"),
        (
            'echo Traceback >&2; echo \'{"failed": "KeyError: no\\\\nconfig"}\'',
            "optimum cannot export this checkpoint: KeyError: no config; its log: ",
        ),
        (
            'echo \'{"stage": "trace"}\'; kill -9 $$',
            "ended with SIGKILL (is there too little memory?) where it traces the model; its log: ",
        ),
    ],
)
def test_an_export_that_fails_is_one_line_and_its_log_is_kept(
    script: str, says: str, checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    script = f"case \"$*\" in *request.json) {script};; *) echo '{GOOD}';; esac"
    monkeypatch.setenv(VARIABLE, str(python(tmp_path, script)))
    opened = reconfigure(checkpoint, {"model_type": "bert", "architectures": ["BertModel"]})
    with pytest.raises(CheckpointError) as caught:
        Optimum().export(opened)
    message = str(caught.value)
    del caught
    assert says in message
    assert "\n" not in message
    if "Traceback" in script:
        assert Path(message.rpartition("log: ")[2]).read_text() == "Traceback\n"
    assert not list((tmp_path / "temporary").iterdir())


CHILD = """
import sys
sys.path.insert(0, {folder!r})
import child
sys.addaudithook(child.forbid)
{does}
"""


@pytest.mark.parametrize(
    "does",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "import subprocess, sys; subprocess.run([sys.executable, '-V'])",
        "import os; os.system('true')",
        "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.Path('x')))",
    ],
)
def test_an_export_calls_nobody_starts_nothing_and_unpickles_nothing(does: str) -> None:
    folder = str(Path(str(forbid.__code__.co_filename)).parent)
    ended = subprocess.run(
        [sys.executable, "-I", "-c", CHILD.format(folder=folder, does=does)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "is not allowed in an export" in ended.stderr


def test_only_the_configuration_and_the_safetensors_of_a_checkpoint_are_given_to_it(checkpoint: Path) -> None:
    (checkpoint / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (checkpoint / "modeling.py").write_text("raise SystemExit")
    (checkpoint / "adapter_config.json").write_text("{}")
    place = Workplace(Checkpoint.open(checkpoint))
    assert sorted(path.name for path in place.checkpoint.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    home = place.path
    del place
    assert not home.exists()
