"""How long a process takes to begin: `edgewise --help`, a plan, and the import of what a device runs.

    python benchmarks/startup.py --docs docs/benchmarks.md

Seconds of a whole process, interpreter included: on the clock, and of the processor, which neighbours disturb less.
Medians of 15 runs, each in turn, and the least. An interpreter that does nothing is there for comparison.
`edgewise.runtime` alone loads nothing; `edgewise.runtime.runner` loads all that a generation needs, numpy, onnxruntime
and tokenizers included. The plan is of a checkpoint in the shape of Llama-3.1-8B, of which there are only the names and
sizes of tensors: for any other one it would be the same.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from shapes import hollow, shaped

RUNS = 15
BEGIN, END = "<!-- benchmarks/startup.py: begin -->", "<!-- benchmarks/startup.py: end -->"
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


def table(runs: Sequence[Mapping[str, Seconds]]) -> Iterator[str]:
    """Medians and the least, by what was run."""
    yield "| what | on the clock | at least | of the processor | at least |"
    yield "|---|---:|---:|---:|---:|"
    for name in runs[0]:
        clock, used = zip(*(run[name] for run in runs), strict=True)
        figures = (f"{value:.2f} s" for times in (clock, used) for value in (median(times), min(times)))
        yield f"| `{name}` | {' | '.join(figures)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, help="the page whose table is replaced")
    docs: Path | None = parser.parse_args().docs
    with tempfile.TemporaryDirectory() as folder:
        commands = ways(hollow(shaped("llama-3.1-8b"), Path(folder)))
        for command in commands.values():
            seconds(command)  # the files come from the page cache from now on
        runs = [{name: seconds(command) for name, command in commands.items()} for _ in range(RUNS)]
    rows = "\n".join(table(runs))
    print(rows)
    if docs:
        before, _, rest = docs.read_text("utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        docs.write_text(f"{before}{BEGIN}\n{rows}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    main()
