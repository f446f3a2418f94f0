"""How long a process takes to begin: `edgewise --help`, and the import of what a device runs.

    python benchmarks/startup.py

Seconds of a whole process, interpreter included; medians of 15 runs, each in turn, and the least, which a busy machine
disturbs least. An interpreter that does nothing is there for comparison. `edgewise.runtime` alone loads nothing;
`edgewise.runtime.runner` loads all that a generation needs, numpy, onnxruntime and tokenizers included.
"""

import subprocess
import sys
import time
from statistics import median

RUNS = 15

WAYS = {
    "python -c pass": ["-c", "pass"],
    "edgewise --help": ["-c", "from edgewise.cli.main import main; main()", "--help"],
    "import edgewise.runtime": ["-c", "import edgewise.runtime"],
    "import edgewise.runtime.runner": ["-c", "import edgewise.runtime.runner"],
}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    for way in WAYS.values():
        seconds(way)  # the files come from the page cache from now on
    runs = [{name: seconds(way) for name, way in WAYS.items()} for _ in range(RUNS)]
    for name in WAYS:
        times = [run[name] for run in runs]
        print(f"{name:32} {median(times):6.3f} s   at least {min(times):6.3f} s")


if __name__ == "__main__":
    main()
