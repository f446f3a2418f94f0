"""How long a process takes to begin: `edgewise --help`, a plan, and the import of what a device runs.

    python benchmarks/startup.py

Seconds of a whole process, interpreter included: on the clock, and of the processor, which neighbours disturb less.
Medians of 15 runs, each in turn, and the least. An interpreter that does nothing is there for comparison.
`edgewise.runtime` alone loads nothing; `edgewise.runtime.runner` loads all that a generation needs, numpy, onnxruntime
and tokenizers included. The plan is of a checkpoint in the shape of Llama-3.1-8B, of which there are only the names and
sizes of tensors: for any other one it would be the same.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from shapes import hollow, shaped

RUNS = 15
COMMAND = ["-c", "from edgewise.cli.main import main; main()"]

Seconds = tuple[float, float]  # on the clock, of the processor


def ways(checkpoint: Path) -> dict[str, list[str]]:
    return {
        "python -c pass": ["-c", "pass"],
        "edgewise --help": [*COMMAND, "--help"],
        "edgewise plan, Llama-3.1-8B": [*COMMAND, "plan", str(checkpoint)],
        "import edgewise.runtime": ["-c", "import edgewise.runtime"],
        "import edgewise.runtime.runner": ["-c", "import edgewise.runtime.runner"],
    }


def seconds(arguments: list[str]) -> Seconds:
    started, before = time.perf_counter(), processor_time()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started, processor_time() - before


def processor_time() -> float:
    """Of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        commands = ways(hollow(shaped("llama-3.1-8b"), Path(folder)))
        for command in commands.values():
            seconds(command)  # the files come from the page cache from now on
        runs = [{name: seconds(command) for name, command in commands.items()} for _ in range(RUNS)]
    for name in commands:
        for kind, times in zip(("clock", "processor"), zip(*(run[name] for run in runs), strict=True), strict=True):
            print(f"{name:32} {kind:10} {median(times):6.3f} s   at least {min(times):6.3f} s")


if __name__ == "__main__":
    main()
