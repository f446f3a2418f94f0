"""One openvino-genai model, timed on request: a line "PREFILL DECODE SEED" on stdin gives seconds of each on stdout.

Runs in the peer's own environment; imports nothing of edgewise. Prompts are fresh each time: the pipeline keeps the
prefixes that it has seen.
"""

import sys

import numpy as np
import openvino
import openvino_genai


def measure(
    pipeline: "openvino_genai.LLMPipeline", vocabulary: int, prefill: int, decode: int, seed: int
) -> tuple[float, float]:
    tokens = np.random.default_rng(seed).integers(1, vocabulary, (1, prefill))
    inputs = openvino_genai.TokenizedInputs(openvino.Tensor(tokens), openvino.Tensor(np.ones_like(tokens)))
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = decode + 1, True, False
    metrics = pipeline.generate(inputs, config).perf_metrics
    return metrics.get_ttft().mean / 1000, metrics.get_tpot().mean / 1000 * decode


def main() -> None:
    folder, vocabulary, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    pipeline = openvino_genai.LLMPipeline(folder, "CPU", INFERENCE_NUM_THREADS=threads)
    print("ready", flush=True)
    for line in sys.stdin:
        prefill, decode, seed = map(int, line.split())
        print(*measure(pipeline, vocabulary, prefill, decode, seed), flush=True)


if __name__ == "__main__":
    main()
