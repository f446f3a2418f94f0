"""One onnxruntime-genai model, timed on request: a line "PREFILL DECODE" on stdin gives seconds of each on stdout.

Runs in the peer's own environment; imports nothing of edgewise.
"""

import os
import sys
import time

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime_genai as og


def measure(model: "og.Model", vocabulary: int, prefill: int, decode: int, seed: int) -> tuple[float, float]:
    tokens = np.random.default_rng(seed).integers(1, vocabulary, prefill).astype(np.int32)
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=prefill + decode + 1, min_length=prefill + decode + 1, do_sample=False)
    generator = og.Generator(model, params)
    start = time.perf_counter()
    generator.append_tokens(tokens)
    generator.generate_next_token()
    middle = time.perf_counter()
    for _ in range(decode):
        generator.generate_next_token()
    return middle - start, time.perf_counter() - middle


def main() -> None:
    folder, vocabulary = sys.argv[1], int(sys.argv[2])
    model = og.Model(folder)
    print("ready", flush=True)
    for line in sys.stdin:
        prefill, decode, seed = map(int, line.split())
        print(*measure(model, vocabulary, prefill, decode, seed), flush=True)


if __name__ == "__main__":
    main()
