"""tests: a process with everything imported that a build needs; it forks a child for each task, and kills it.

Reads a task from each line of its input, and answers with a line. Forking is what makes a killed build cost
milliseconds; it is done here, and not in the process of the tests, which has threads.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import edgewise_exporters.decoder
import edgewise_plugins.quantize
import edgewise_targets.ort.lower
from edgewise.bundle import write
from edgewise.bundle.write import staged
from edgewise.calibration.cache import VARIABLE
from edgewise.calibration.calibration import Calibration
from edgewise.calibration.texts import CalibrationText
from edgewise.exporters import export_graph
from edgewise.graph import get_facts
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.prepare import open_checkpoint
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress
from edgewise_plugins.quantize.rules import Method

PYCODER = Path(__file__).parent.parent / "examples" / "pycoder"
TOKENS = (12, 64)  # 4 for each of 128 inputs, and more
Ask = Callable[..., dict[str, Any]]  # what the fixture `ask` is

ROOMS = (edgewise_exporters.decoder, edgewise_plugins.quantize, edgewise_targets.ort.lower)  # not on first use


def build_killed(checkpoint: str, output: str, context: int, after: float | None) -> dict[str, Any]:
    """A build, killed so many seconds after it began to write (None: not at all); how many seconds it wrote."""
    folder = Path(output).parent
    before, child = set(folder.iterdir()), os.fork()
    if not child:
        build(checkpoint, output=output, context=context, force=True, load_check=False)
        os._exit(0)
    while set(folder.iterdir()) == before and not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        time.sleep(0.0005)
    began = time.perf_counter()
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return {"seconds": time.perf_counter() - began, "status": os.waitstatus_to_exitcode(status)}


def quantize_killed(checkpoint: str, method: Method, cache: str, after: int) -> dict[str, Any]:
    """A model quantized on a text, killed at a progress report of that number while hidden states are written."""
    child = os.fork()
    if not child:
        os.environ[VARIABLE] = cache
        left = after

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal left
            left -= stage == "calibrate"
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

        quantized(Path(checkpoint), method, progress)
        os._exit(0)
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


def quantized(checkpoint: Path, method: Method, progress: Progress | None = None) -> ir.Model:
    """A model that is quantized on random tokens."""
    model = export_graph(open_checkpoint(checkpoint))
    calibration = Calibration(CalibrationText(PYCODER / "heldout.txt"), Tokenizer.load(PYCODER), progress=progress)
    calibration.sequences = np.random.default_rng(1).integers(0, get_facts(model).vocab_size, TOKENS, np.int64)
    model.meta["edgewise"] = BuildContext(calibration=calibration)
    edgewise_plugins.quantize.Quantize(block_size=32, method=method, steps=2)(model)
    return model


def publish_killed(output: str, text: str, step: int, exchange: bool) -> dict[str, Any]:
    """A folder with two files published by force, killed just before its step number `step`."""
    child = os.fork()
    if not child:
        die_at(step, exchange)
        with staged(Path(output), force=True) as stage:
            (stage / "onnx").mkdir()
            (stage / "onnx" / "model.onnx").write_text(text)
            (stage / "README.md").write_text(text)
        os._exit(0)
    return {"status": os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}


def die_at(step: int, exchange: bool) -> None:
    """Make this process kill itself before one of the operations on the disk that follow."""
    left = step

    def deadly(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return operation(*arguments, **options)

        return call

    for name in ("fsync", "rename", "chmod", "unlink", "rmdir", "close"):
        setattr(os, name, deadly(getattr(os, name)))
    write._exchange = deadly(write._exchange if exchange else lambda stage, output: False)


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "build": build_killed,
    "publish": publish_killed,
    "quantize": quantize_killed,
}

if __name__ == "__main__":
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(TASKS[task.pop("task")](**task)), flush=True)
