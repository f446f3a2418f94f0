"""One bundle measured for `plan.py`, in a process that loads nothing but a runner; prints JSON.

    python benchmarks/workers/plan.py BUNDLE CONTEXT THREADS

A prompt that fills the context, and tokens decoded at its end: the best of some runs of those.
"""

import json
import sys
import time

import numpy as np

from edgewise.runtime.result import peak_memory
from edgewise.runtime.runner import Runner

DECODED, RUNS = 16, 6
WARM = 129  # tokens: a whole piece of a prompt, and one


def main() -> None:
    bundle, context, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    clock = time.process_time if threads == 1 else time.perf_counter
    with Runner.open(bundle, verify=False, threads=threads, prefix_cache=0) as runner:
        vocabulary = runner.model.facts.vocab_size
        tokens = np.random.default_rng(0).integers(0, vocabulary, context).tolist()
        session = runner.session(capacity=context)
        session.prefill(tokens[:WARM])
        session.rewind(0)
        started = clock()
        session.prefill(tokens)
        prefill = clock() - started
        decodes = []
        for _ in range(RUNS):
            session.rewind(context - DECODED)
            started = clock()
            for token in tokens[-DECODED:]:
                session.decode(token)
            decodes.append((clock() - started) / DECODED)
    print(json.dumps({"prefill_s": prefill, "decode_s": min(decodes), "memory": peak_memory() or 0}))


if __name__ == "__main__":
    main()
