"""llama.cpp: quantizes a GGUF file, says how large it is, gives its scores, and is timed on request.

    python llama.py quantize MODEL.gguf QUANTIZED.gguf Q4_K_M
    python llama.py size MODEL.gguf
    python llama.py logits MODEL.gguf TOKENS.npy LOGITS.npy
    python llama.py time MODEL.gguf                             lines "PREFILL DECODE SEED" on stdin, seconds on stdout

Runs in the peer's own environment; imports nothing of edgewise.
"""

import ctypes
import sys
import time
from collections.abc import Callable

import gguf
import llama_cpp
import numpy as np

THREADS = 2


def quantize(source: str, output: str, kind: str) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.nthread = THREADS
    if llama_cpp.llama_model_quantize(source.encode(), output.encode(), ctypes.byref(params)):
        raise SystemExit(f"llama.cpp could not quantize {source} to {kind}")


def size(source: str) -> None:
    """Prints the bytes of the weights, without the file's metadata (the tokenizer is there)."""
    print(sum(int(tensor.n_bytes) for tensor in gguf.GGUFReader(source).tensors))


def logits(source: str, tokens: str, output: str) -> None:
    sequences = np.load(tokens)
    model = _open(source, context=sequences.shape[1], all_scores=True)
    shape = (*sequences.shape, model.n_vocab())
    scores = np.lib.format.open_memmap(output, "w+", np.float32, shape)
    for row, sequence in enumerate(sequences):
        model.reset()
        model.eval(sequence.tolist())
        scores[row] = model.scores[: len(sequence)]
    scores.flush()


def timed(source: str) -> None:
    model = _open(source, context=1024, all_scores=False)
    print("ready", flush=True)
    for line in sys.stdin:
        prefill, decode, seed = map(int, line.split())
        print(*measure(model, prefill, decode, seed), flush=True)


def measure(model: "llama_cpp.Llama", prefill: int, decode: int, seed: int) -> tuple[float, float]:
    tokens = np.random.default_rng(seed).integers(1, model.n_vocab(), prefill).tolist()
    model.reset()
    start = time.perf_counter()
    model.eval(tokens)
    middle = time.perf_counter()
    for token in tokens[:decode]:  # which one does not change the time
        model.eval([token])
    return middle - start, time.perf_counter() - middle


def _open(source: str, *, context: int, all_scores: bool) -> "llama_cpp.Llama":
    return llama_cpp.Llama(
        source,
        n_ctx=context,
        n_batch=context,
        n_ubatch=context,
        n_threads=THREADS,
        n_threads_batch=THREADS,
        logits_all=all_scores,
        verbose=False,
    )


def main() -> None:
    command, *arguments = sys.argv[1:]
    commands: dict[str, Callable[..., None]] = {"quantize": quantize, "size": size, "logits": logits, "time": timed}
    commands[command](*arguments)


if __name__ == "__main__":
    main()
