"""Bundles on an NVIDIA GPU: are they right, how fast, beside transformers, and how near to the memory's bandwidth.

    pip install 'edgewise[gpu,build]' transformers torch      # a torch with CUDA
    python benchmarks/cuda.py --work /tmp/edgewise-cuda --target h200

Right: the scores of 64 tokens, beside those of a bundle of the same int4 codes on the processor. Fast: prompts of 512
tokens and 128 new ones, batches of 1 and 8, our int4 and float16 and transformers' float16 in turn, each in a process
of its own; medians, and the median of the ratios of a round, the first of which is not counted. Near: bytes of weights
and of keys and values that a step reads, by its time and by the bandwidth that the target's profile states.
`--captured` lets ONNX Runtime capture decoding as a CUDA graph.
"""

import argparse
import dataclasses
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
import peer
from shapes import SHAPES, shaped, write_checkpoint
from speed import Worker

import edgewise
from edgewise import Runner
from edgewise.bundle.read import Bundle
from edgewise.recipe import Recipe, RecipeStep
from edgewise.registry import registry
from edgewise.target import Target

MODELS = ("qwen2.5-0.5b", "llama-3.2-1b", "llama-3.1-8b")
INT4 = Recipe((RecipeStep("quantize", {"bits": 4, "block_size": 32, "symmetric": True}),))
RECIPES = {"int4": INT4, "float16": Recipe(())}
PROMPT, NEW, CHECKED = 512, 128, 64

Speeds = tuple[float, float]  # tokens a second: prefill, decode


def refuse_without_a_gpu() -> None:
    """Ends in one line where there is nothing to measure."""
    try:
        subprocess.run(["nvidia-smi", "-L"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("there is no NVIDIA GPU here (nvidia-smi does not list one): nothing was measured") from None


def bundles(checkpoint: Path, target: Target, work: Path) -> dict[str, Path]:
    """The same checkpoint in each recipe, for the GPU, and in int4 for the processor, its activations in float32."""
    float32 = (RecipeStep("lower-ort", {"accuracy_level": 0}),)
    cpu = dataclasses.replace(registry().get_target("cpu-x64"), lowering=float32)
    made = {name: (target, recipe) for name, recipe in RECIPES.items()} | {"cpu": (cpu, INT4)}
    for name, (device, recipe) in made.items():
        output = work / f"{checkpoint.name}-{name}.edge"
        if not output.exists():
            edgewise.build(checkpoint, target=device, recipe=recipe, output=output, context=4096)
    return {name: work / f"{checkpoint.name}-{name}.edge" for name in made}


def distance(bundle: Path, reference: Path) -> tuple[float, float]:
    """The largest difference of scores, by the largest score; the share of positions with the same best token."""
    found = []
    for path in (bundle, reference):
        with Runner.open(path) as runner:
            tokens = np.random.default_rng(7).integers(1, runner.facts.vocab_size, CHECKED).tolist()
            found.append(runner.session(capacity=CHECKED).prefill(tokens, scores=CHECKED).copy())
    ours, theirs = found
    same = float((ours.argmax(-1) == theirs.argmax(-1)).mean())
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max()), same


def step_bytes(bundle: Bundle, rows: int) -> float:
    """What a step reads: all weights once (of an embedding that is no lm_head, next to nothing), each row's cache."""
    facts, card = bundle.manifest.language_model, bundle.manifest.card
    weights: float = card["bytes"]["after"]
    if not facts.tied:
        weights -= card["parts"]["embedding"]["after"]
    return weights + rows * facts.cache_bytes(PROMPT + NEW // 2)


def measure_in_turn(paths: Mapping[str, Path], checkpoint: Path, rows: int, rounds: int) -> dict[str, list[Speeds]]:
    """Tokens a second of a row, of prompts and of decoding, round by round."""
    begun: dict[str, tuple[str, Path]] = {recipe: ("rows.py", paths[recipe]) for recipe in RECIPES}
    begun["transformers"] = ("transformers_cuda.py", checkpoint)
    found: dict[str, list[Speeds]] = {name: [] for name in begun}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(Worker.start(peer.here(), script, path, rows))
            for name, (script, path) in begun.items()
        }
        for seed in range(rounds + 1):
            for name, worker in workers.items():
                speeds = worker.measure(PROMPT, NEW, seed)
                if seed:
                    found[name].append(speeds)
    return found


def report(
    name: str,
    rows: int,
    found: Mapping[str, Sequence[Speeds]],
    paths: Mapping[str, Path],
    bandwidth: float,
) -> None:
    for runner, speeds in found.items():
        prefill, decode = (median(values) for values in zip(*speeds, strict=True))
        speed = f"prefill {rows * prefill:9,.0f}  decode {rows * decode:8,.1f} tokens/s"
        line = f"{name:14} batch {rows}  {runner:12}  {speed}"
        if runner in paths:
            ratio = median(ours[1] / theirs[1] for ours, theirs in zip(speeds, found["transformers"], strict=True))
            share = step_bytes(Bundle.open(paths[runner], verify=False), rows) * decode / bandwidth
            line += f"  {ratio:.2f} times transformers  {share:.0%} of the bandwidth"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--target", default="h200")
    parser.add_argument("--models", nargs="+", choices=sorted(SHAPES), default=MODELS)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--captured", action="store_true")
    options = parser.parse_args()
    refuse_without_a_gpu()
    target = registry().get_target(options.target)
    bandwidth = target.hardware.bandwidth
    if bandwidth is None:
        raise SystemExit(f"target '{target.name}' states no bandwidth")
    if options.captured:
        captured = {**target.providers[0].options, "enable_cuda_graph": "1"}
        target = dataclasses.replace(target, providers=(dataclasses.replace(target.providers[0], options=captured),))
    for name in options.models:
        checkpoint = write_checkpoint(shaped(name), options.work / name)
        paths = bundles(checkpoint, target, options.work)
        off, same = distance(paths["int4"], paths["cpu"])
        print(f"{name:14} beside the processor: scores differ by {off:.2%}, the best token is the same in {same:.0%}")
        for rows in options.batches:
            found = measure_in_turn(paths, checkpoint, rows, options.rounds)
            report(name, rows, found, paths, bandwidth.value)


if __name__ == "__main__":
    main()
