"""The same checkpoint, quantized by ONNX Runtime's own tool and by llama.cpp.

ONNX Runtime's quantizer gets the float graph of an edgewise bundle, and its result takes the place of that graph: only
weights differ. llama.cpp gets a GGUF file of the checkpoint in float32, which scores as the float model does.
"""

import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import peer
from build import Cost, run
from candidates import Candidate, Failed, once
from ours_quantized import candidate

from edgewise import Checkpoint
from edgewise.bundle.manifest import FILE_NAME, File
from edgewise.bundle.read import Bundle

WORKERS = Path(__file__).parent / "workers"
LLAMA_PACKAGES = ["numpy", "gguf", "llama-cpp-python"]
ORT_METHODS = {
    "default": "default",
    "default-4": "default, accuracy_level 4",
    "default-embedding": "default, with embedding",
    "rtn": "RTN",
    "hqq": "HQQ",
    "k_quant": "k_quant",
    "gptq": "GPTQ",
}
SYMMETRIC = ("default", "default-4", "default-embedding", "rtn", "gptq")
LLAMA_KINDS = ("Q8_0", "Q4_K_M", "Q4_0", "Q3_K_M")


def quantized_by_onnxruntime(method: str, floats: Path, calibration: Path, work: Path) -> Candidate | Failed:
    """A copy of the float bundle with the graph that ONNX Runtime's quantizer made of it."""
    name, form = f"onnxruntime {ORT_METHODS[method]}", "int4, 32" + (" sym" if method in SYMMETRIC else "")
    folder = work / f"onnxruntime-{method}.edge"

    def make() -> Cost:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(floats, folder)
        graph = Bundle.open(floats).manifest.decoder
        for old in (folder / graph).parent.iterdir():
            old.unlink()
        worker = WORKERS / "ort_quantizer.py"
        cost = run([peer.here(), worker, method, floats / graph, folder / graph, calibration])
        _seal(folder)
        return cost

    try:
        cost = once(folder, make)
    except subprocess.CalledProcessError as error:
        return Failed.of(name, form, error)
    return candidate(name, form, folder, cost=cost)


def _seal(folder: Path) -> None:
    """State the files of a bundle as they are now."""
    manifest = Bundle.open(folder, verify=False).manifest
    contents = {name: (folder / name).read_bytes() for name in manifest.files}
    files = {name: File(len(data), blake3.blake3(data).hexdigest()) for name, data in contents.items()}
    (folder / FILE_NAME).write_text(dataclasses.replace(manifest, files=files).write())


def write_gguf(python: Path, checkpoint: Path, output: Path, dtype: type[np.floating[Any]] = np.float32) -> None:
    """A checkpoint as a GGUF file, its matrices in this type."""
    weights = output.with_suffix(".npz")
    tensors = Checkpoint.open(checkpoint).tensors
    arrays = {name: tensor.read(0, tensor.dims[0]).astype(dtype) for name, tensor in tensors.items()}
    np.savez(weights, allow_pickle=False, **arrays)
    run([python, WORKERS / "gguf_model.py", checkpoint, weights, output])
    weights.unlink()


@dataclasses.dataclass(frozen=True)
class Llama:
    """llama.cpp in an environment of its own."""

    python: Path
    work: Path

    @classmethod
    def of(cls, python: Path | None, work: Path) -> "Llama":
        return cls(python or peer.environment(work / "llama", LLAMA_PACKAGES), work)

    def convert(self, folder: Path) -> Candidate:
        """The checkpoint as GGUF, in float32."""
        output = self.work / "F32.gguf"
        write_gguf(self.python, folder, output)
        return self._candidate("F32", output, None)

    def quantize(self, kind: str) -> Candidate | Failed:
        output = self.work / f"{kind}.gguf"
        command = [self.python, WORKERS / "llama.py", "quantize", self.work / "F32.gguf", output, kind]
        try:
            cost = once(output, lambda: run(command))
        except subprocess.CalledProcessError as error:
            return Failed.of(f"llama.cpp {kind}", "", error)
        return self._candidate(kind, output, cost)

    def _candidate(self, kind: str, file: Path, cost: Cost | None) -> Candidate:
        command: list[str | Path] = [self.python, WORKERS / "llama.py", "size", file]
        size = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

        def scores(sequences: np.ndarray) -> Iterator[np.ndarray]:
            tokens, found = self.work / "tokens.npy", self.work / "logits.npy"
            np.save(tokens, sequences)
            run([self.python, WORKERS / "llama.py", "logits", file, tokens, found])
            yield from np.load(found, mmap_mode="r")

        return Candidate(f"llama.cpp {kind}", "", size, cost, scores, (self.python, "llama.py", ("time", file)))
