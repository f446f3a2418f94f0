"""sdk, bench: two measurements side by side: ratios, and how sure they are."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.bench.report import Report

RESAMPLES = 2000


@dataclass(frozen=True)
class Ratio:
    """How many times as fast the first is as the second: the ratio of medians, and where 95 of 100 resamples lie.

    The interval is a percentile bootstrap (Efron 1979) of both samples; where it has 1 inside, nothing is shown.
    """

    name: str
    first: float
    second: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Ratios, and what makes them less than a comparison of two bundles: other machines, threads, sizes, outputs."""

    ratios: tuple[Ratio, ...]
    differences: tuple[str, ...]


def compare(first: Report, second: Report) -> Comparison:
    """The first measurement by the second."""
    pairs = [
        ("prefill", first.speed.prefill, second.speed.prefill),
        ("decode", first.speed.decode, second.speed.decode),
    ]
    if first.answer and second.answer:
        pairs.append(("answer", first.answer.rate, second.answer.rate))
    ratios = [ratio(name, mine.samples, other.samples) for name, mine, other in pairs]
    sizes = [
        f"{name}: {mine.tokens} and {other.tokens} tokens" for name, mine, other in pairs if mine.tokens != other.tokens
    ]
    if first.answer and second.answer and first.answer.prompt_blake3 != second.answer.prompt_blake3:
        sizes.append(f"prompt: one of {first.answer.prompt_tokens} tokens and one of {second.answer.prompt_tokens}")
    return Comparison(tuple(ratios), (*_differences(first, second), *sizes))


def ratio(name: str, first: Sequence[float], second: Sequence[float]) -> Ratio:
    """The ratio of two sets of samples, with its spread."""
    rng = np.random.default_rng(0)
    tops = np.median(rng.choice(np.array(first), (RESAMPLES, len(first))), axis=1)
    bottoms = np.median(rng.choice(np.array(second), (RESAMPLES, len(second))), axis=1)
    low, high = np.percentile(tops / bottoms, (2.5, 97.5)).tolist()
    medians = statistics.median(first), statistics.median(second)
    return Ratio(name, *medians, medians[0] / medians[1], low, high)


def _differences(first: Report, second: Report) -> list[str]:
    places = {
        "processor": (first.host.processor, second.host.processor),
        "threads": (first.threads, second.threads),
        "onnxruntime": (first.host.onnxruntime, second.host.onnxruntime),
        "edgewise": (first.host.edgewise, second.host.edgewise),
        "greedy output": (first.speed.output_blake3[:12], second.speed.output_blake3[:12]),
    }
    return [f"{name}: {mine} and {other}" for name, (mine, other) in places.items() if mine != other]
