"""tests: distributions as transformers leaves them, or as a filter's definition says, slow and obvious, in float64."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from edgewise.options import record
from edgewise.search.protocol import FloatArray
from edgewise.search.sample import Sample

Doubles = NDArray[np.float64]


def random_scores(seed: int, count: int = 3000, deviation: float = 3.0) -> FloatArray:
    return np.random.default_rng(seed).normal(0, deviation, count).astype(np.float32)


def probabilities(sample: Sample, scores: FloatArray) -> Doubles:
    ids, weights = sample.candidates(scores.copy())
    found = np.zeros(len(scores))
    found[slice(None) if ids is None else ids] = weights / weights.sum(dtype=np.float64)
    return found


WARPERS: dict[str, Callable[[Any], Any]] = {
    "temperature": transformers.TemperatureLogitsWarper,
    "top_k": transformers.TopKLogitsWarper,
    "top_p": transformers.TopPLogitsWarper,
    "min_p": transformers.MinPLogitsWarper,
    "typical_p": transformers.TypicalLogitsWarper,
    "epsilon_cutoff": transformers.EpsilonLogitsWarper,
    "eta_cutoff": transformers.EtaLogitsWarper,
}

SAMPLERS = [
    Sample(),
    Sample(temperature=0.5),
    Sample(temperature=2.0),
    Sample(top_k=5),
    Sample(top_p=0.7),
    Sample(min_p=0.1),
    Sample(typical_p=0.2),
    Sample(typical_p=0.9),
    Sample(temperature=1.5, typical_p=0.97),
    Sample(epsilon_cutoff=0.002),
    Sample(epsilon_cutoff=0.9),
    Sample(eta_cutoff=0.004),
    Sample(temperature=0.4, eta_cutoff=0.3),
    Sample(temperature=0.8, top_k=20, top_p=0.9, min_p=0.05),
    Sample(temperature=1.3, top_k=200, top_p=0.97, min_p=0.01, typical_p=0.9, epsilon_cutoff=0.001, eta_cutoff=0.01),
]


def oracle(sample: Sample, scores: FloatArray) -> Doubles:
    """The warpers of transformers for what was given, in order."""
    asked = record(sample)
    warpers = [WARPERS[name](asked[name]) for name in sample.order if name in asked]
    chain: Any = transformers.LogitsProcessorList(warpers)
    left = chain(torch.zeros((1, 1), dtype=torch.long), torch.from_numpy(scores[None].copy()))
    found: Doubles = left.double().softmax(-1)[0].numpy()
    return found


def softmax(scores: NDArray[Any]) -> Doubles:
    weights = np.exp(scores.astype(np.float64) - scores.max())
    found: Doubles = weights / weights.sum()
    return found


def top_n_sigma(scores: FloatArray, n: float) -> Doubles:
    possible = scores[scores > -np.inf].astype(np.float64)
    return softmax(np.where(scores >= possible.max() - n * possible.std(), scores, -np.inf))


def dynamic(scores: FloatArray, temperature: float, spread: float, exponent: float) -> Doubles:
    p = softmax(scores)
    entropy = -sum(x * math.log(x) for x in p if x > 0) / math.log(len(p))
    heat = temperature - spread + 2 * spread * entropy**exponent
    return softmax(scores.astype(np.float64) / heat)


def xtc(p: Doubles, probability: float, threshold: float) -> Doubles:
    """Over the two things that may happen."""
    chosen = sorted((i for i in range(len(p)) if p[i] >= threshold), key=lambda i: -p[i])
    excluded = p.copy()
    excluded[chosen[:-1]] = 0
    mixed: Doubles = (1 - probability) * p + probability * excluded / excluded.sum()
    return mixed


def exactly(sample: Sample, scores: FloatArray) -> Doubles:
    """What a sampler with one filter should draw from."""
    if sample.top_n_sigma:
        return top_n_sigma(scores, sample.top_n_sigma)
    if sample.temperature_range:
        return dynamic(scores, sample.temperature, sample.temperature_range, sample.temperature_exponent)
    if sample.xtc_probability:
        return xtc(softmax(scores), sample.xtc_probability, sample.xtc_threshold)
    return oracle(sample, scores)
