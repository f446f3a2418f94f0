"""tests: a bundle on an NVIDIA GPU: every node there, and the scores of the same weights on the processor."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgewise import Runner
from edgewise.pipeline import build
from edgewise.recipe import RecipeStep
from edgewise.registry import registry

ROOT = Path(__file__).parents[1]
PYCODER = ROOT / "examples" / "pycoder"
CUDA = "CUDAExecutionProvider"

gpu = pytest.mark.skipif(
    CUDA not in ort.get_available_providers(), reason="this onnxruntime has no CUDA: pip install 'edgewise[gpu]'"
)


@pytest.mark.slow
@gpu
@pytest.mark.parametrize("captured", [False, True])
def test_a_gpu_scores_what_the_processor_does(captured: bool, tmp_path: Path) -> None:
    cpu, cuda = registry().get_target("cpu-x64"), registry().get_target("cuda")
    cpu = dataclasses.replace(
        cpu, recipe=cuda.recipe, calibrated=(), lowering=(RecipeStep("lower-ort", {"accuracy_level": 0}),)
    )
    if captured:
        provider = dataclasses.replace(cuda.providers[0], options={"enable_cuda_graph": "1"})
        cuda = dataclasses.replace(cuda, providers=(provider,))
    tokens = np.random.default_rng(3).integers(3, 4000, 40).tolist()
    found = []
    for name, target in (("cpu", cpu), ("cuda", cuda)):
        bundle = build(PYCODER, target=target, output=tmp_path / f"{name}.edge")
        with Runner.open(bundle.path) as runner:
            session = runner.session(capacity=len(tokens))
            scores = [session.prefill(tokens[:20]).copy()]
            found.append(np.concatenate(scores + [session.decode(token).copy() for token in tokens[20:]]))
    largest = np.abs(found[0]).max()
    assert np.abs(found[1] - found[0]).max() < 2e-2 * largest  # float16
    assert (found[1].argmax(-1) == found[0].argmax(-1)).mean() > 0.9


def test_the_benchmark_says_in_one_line_that_there_is_no_gpu(tmp_path: Path) -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("there may be a GPU here")
    command = [sys.executable, str(ROOT / "benchmarks" / "cuda.py"), "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "benchmarks")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "there is no NVIDIA GPU here (nvidia-smi does not list one): nothing was measured"
    ]
