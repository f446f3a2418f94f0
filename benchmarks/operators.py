"""Where the time of a prompt goes, by operator: ONNX Runtime's own profile of a bundle's graph.

    python benchmarks/operators.py /tmp/model.edge --graph prefill --chunk 256

For each node the least of many runs is taken: on a machine with other work that is near what it takes alone. Prints
milliseconds of each operator in one prompt, and of each role.
"""

import argparse
import json
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.bundle.read import Bundle
from edgewise.runtime import ort
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session

KERNEL = "_kernel_time"
LINES = 16


def profiled(bundle: Bundle, graph: str, threads: int, folder: str) -> Model:
    """The model, whose session writes a profile into a folder."""
    options = ort._session_options

    def profiling(threads: int | None, entries: Mapping[str, str]) -> Any:
        made = options(threads, entries)
        made.enable_profiling, made.profile_file_prefix = True, f"{folder}/profile"
        return made

    ort._session_options = profiling
    return Model.load(bundle.path, bundle.manifest, threads=threads, only=graph)


def least(events: list[dict[str, Any]], runs: int) -> dict[tuple[str, str, int], float]:
    """Milliseconds by operator, node and run within a prompt of so many; the first prompt warms up."""
    found: dict[tuple[str, str, int], float] = {}
    seen: Counter[str] = Counter()
    for event in sorted(events, key=lambda event: int(event["ts"])):
        if event["cat"] == "Node" and event["name"].endswith(KERNEL):
            name = event["name"].removesuffix(KERNEL)
            prompt, run = divmod(seen[name], runs)
            seen[name] += 1
            if prompt:
                key = event["args"]["op_name"], name, run
                found[key] = min(found.get(key, float("inf")), event["dur"] / 1000)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--graph", default="prefill")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--chunk", type=int, help="as the bundle has it, unless it is given")
    parser.add_argument("--rounds", type=int, default=16)
    options = parser.parse_args()
    bundle = Bundle.open(options.bundle)
    with tempfile.TemporaryDirectory() as folder:
        model = profiled(bundle, options.graph, options.threads, folder)
        session = Session(model, capacity=options.tokens, chunk=options.chunk)
        tokens = np.random.default_rng(0).integers(1, model.facts.vocab_size, options.tokens).tolist()
        for _ in range(options.rounds + 1):
            session.rewind(0)
            session.prefill(tokens)
        events = json.loads(Path(model.graph.end_profiling()).read_text())
    times = least(events, -(-options.tokens // session.chunk))
    operators, roles = defaultdict[str, float](float), defaultdict[str, float](float)
    for (operator, name, _), taken in times.items():
        operators[operator] += taken
        roles[f"{operator} {re.sub(r'layers[.][0-9]+[.]', '', name)}"] += taken
    whole = sum(operators.values())
    print(f"{options.tokens} tokens, {session.chunk} at a time, {options.threads} threads: {whole:.0f} ms")
    for counted in (operators, roles):
        print()
        for name, taken in sorted(counted.items(), key=lambda item: -item[1])[:LINES]:
            print(f"{taken:7.1f} ms {taken / whole:6.1%}  {name}")


if __name__ == "__main__":
    main()
