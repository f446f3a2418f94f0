"""sdk, probe: how long a graph takes, at its best: what else runs on the machine only adds to it."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgewise.runtime.ort import in_place, open_graph
from edgewise.runtime.pages import huge_pages

FEWEST = 3  # runs, whatever they take


def opened(graph: bytes, *, threads: int | None) -> Any:
    """A session of ONNX Runtime, with the settings that bundles run with."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        path.write_bytes(graph)
        with huge_pages():
            return open_graph(path, threads=threads)


def seconds(work: Callable[[], object], *, threads: int, budget: float) -> float:
    """The shortest of the runs that take `budget` seconds together, after one that warms up.

    With one thread it is processor time, which neighbours disturb less.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    work()
    taken: list[float] = []
    while len(taken) < FEWEST or sum(taken) < budget:
        started = clock()
        work()
        taken.append(clock() - started)
    return min(taken)


def bound(session: Any, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Callable[[], None]:
    """Run a session on memory that is bound once. The arrays must outlive it."""
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, in_place(array))
    for name, array in outputs.items():
        binding.bind_ortvalue_output(name, in_place(array))
    return lambda: session.run_with_iobinding(binding)
