"""The peer: onnxruntime-genai in an environment of its own, and its int4 build of a checkpoint."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = ["onnxruntime-genai==0.18.0", "onnxruntime==1.31.1"]
BUILDER = ["torch==2.13.0", "transformers", "onnx", "onnx-ir", "tqdm"]
THREADS = 2


def environment(folder: Path, packages: list[str]) -> Path:
    """The Python of a virtual environment that has the packages; made on first use."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        for package in packages:
            subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


def build(checkpoint: Path, output: Path, python: Path) -> Path:
    """The peer's own int4 model for the CPU, as its builder makes it by default; threads set to 2."""
    if not output.exists():
        command: list[str | Path] = [python, "-m", "onnxruntime_genai.models.builder", "-i", checkpoint, "-o", output]
        command += ["-p", "int4", "-e", "cpu", "-c", output.with_suffix(".cache")]
        quiet = subprocess.DEVNULL
        subprocess.run(command, check=True, env=offline(), stdout=quiet, stderr=quiet)
    path = output / "genai_config.json"
    settings = json.loads(path.read_text())
    settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = THREADS
    path.write_text(json.dumps(settings, indent=4))
    return output


def offline() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": ""}


def here() -> Path:
    """The Python that runs the benchmark."""
    return Path(sys.executable)
