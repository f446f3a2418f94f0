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

import edgewise_exporters.decoder
import edgewise_plugins.quantize
import edgewise_targets.ort.lower
from edgewise.bundle import write
from edgewise.bundle.write import staged
from edgewise.pipeline import build

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


TASKS: dict[str, Callable[..., dict[str, Any]]] = {"build": build_killed, "publish": publish_killed}

if __name__ == "__main__":
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(TASKS[task.pop("task")](**task)), flush=True)
