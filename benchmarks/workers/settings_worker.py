"""One edgewise bundle with other settings, timed on request: "PREFILL DECODE SEED" on stdin gives seconds of each.

    python settings_worker.py BUNDLE '{"session": {"session.intra_op.allow_spinning": "0"}, "threads": 1}'

The first line says the seconds that it took to load, and the megabytes of memory that the process has then.
"""

import json
import resource
import sys
import time
from dataclasses import replace

import numpy as np

from edgewise.bundle.read import Bundle
from edgewise.runtime import pages
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session


def measure(model: Model, prefill: int, decode: int, seed: int) -> tuple[float, float]:
    tokens = np.random.default_rng(seed).integers(1, model.facts.vocab_size, prefill).tolist()
    session = Session(model, capacity=prefill + decode)
    start = time.perf_counter()
    session.prefill(tokens)
    middle = time.perf_counter()
    for token in tokens[:decode]:  # which one does not change the time
        session.decode(token)
    return middle - start, time.perf_counter() - middle


def main() -> None:
    settings = json.loads(sys.argv[2])
    if not settings.get("huge_pages", True):
        pages.LIMIT_S = -1
    bundle = Bundle.open(sys.argv[1], verify=False)
    manifest = replace(bundle.manifest, session=bundle.manifest.session | settings.get("session", {}))
    started = time.perf_counter()
    model = Model.load(bundle.path, manifest, threads=settings.get("threads"))
    print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, flush=True)
    for line in sys.stdin:
        prefill, decode, seed = map(int, line.split())
        print(*measure(model, prefill, decode, seed), flush=True)


if __name__ == "__main__":
    main()
