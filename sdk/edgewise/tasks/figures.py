"""sdk, tasks: from answered tasks to figures, of quality and of what it took."""

import math
from collections.abc import Sequence

import numpy as np

from edgewise.bench.energy import Energy
from edgewise.runtime.result import peak_memory
from edgewise.tasks.journal import Batch
from edgewise.tasks.metrics import (
    Figure,
    calibration_error,
    distinct,
    pass_at_k,
    repetition,
    resampled,
    share,
)
from edgewise.tasks.prices import Prices
from edgewise.tasks.result import Efficiency, Item


def figures(items: Sequence[Item]) -> dict[str, Figure]:
    """By name; those of perturbed prompts have the perturbation in theirs, and the drop from the others."""
    plain = [item for item in items if not item.variant]
    found = {**_accuracy(plain), **_texts(plain), **_generated(plain)}
    for variant in dict.fromkeys(item.variant for item in items if item.variant):
        varied = {item.id: item.right for item in items if item.variant == variant}
        pairs = [item.right - varied[item.id] for item in plain if item.id in varied]
        found[f"accuracy, {variant}"] = share(list(varied.values()))
        found[f"drop by {variant}"] = resampled(pairs)
    return found


def _accuracy(items: Sequence[Item]) -> dict[str, Figure]:
    judged = [item for item in items if item.kind != "text"]
    if not judged:
        return {}
    found = {"accuracy": share([item.right for item in judged])}
    for model in sorted({item.model for item in judged if item.model}):
        found[f"answered by model {model}"] = share([float(item.model == model) for item in judged])
    if scored := [item.f1 for item in judged if item.f1 is not None]:
        found["token F1"] = resampled(scored)
    if sure := [(item.confidence, item.right) for item in judged if item.confidence is not None]:
        confidences, right = zip(*sure, strict=True)
        found["calibration error"] = Figure(calibration_error(confidences, right), count=len(sure))
    tested = [item for item in judged if item.kind == "tests"]
    for k in _ks(tested):
        found[f"pass@{k}"] = resampled([pass_at_k(item.samples, item.passed, k) for item in tested])
    return found


def _ks(tested: Sequence[Item]) -> list[int]:
    most = min((item.samples for item in tested), default=0)
    return [k for k in (1, 2, 5, 10, 25, 50, 100) if k <= most]


def _texts(items: Sequence[Item]) -> dict[str, Figure]:
    texts = [item for item in items if item.nats is not None]
    if not texts:
        return {}
    nats = sum(item.nats or 0.0 for item in texts)
    tokens, size = sum(item.samples for item in texts), sum(item.bytes for item in texts)
    return {
        "perplexity": Figure(math.exp(nats / tokens), count=len(texts)),
        "bits per byte": Figure(nats / math.log(2) / size, count=len(texts)),
    }


def _generated(items: Sequence[Item]) -> dict[str, Figure]:
    texts = [item.text for item in items if item.kind in ("answer", "tests")]
    if not texts:
        return {}
    return {
        "distinct-1": Figure(distinct(texts, 1), count=len(texts)),
        "distinct-2": Figure(distinct(texts, 2), count=len(texts)),
        "repetition": Figure(sum(map(repetition, texts)) / len(texts), count=len(texts)),
    }


def efficiency(batches: Sequence[Batch], prices: Prices | None) -> Efficiency:
    """What answering took, per right answer too: the headline."""
    items = [item for batch in batches for item in batch.items]
    seconds = sum(batch.seconds for batch in batches)
    tokens, right = sum(item.tokens for item in items), sum(item.right for item in items)
    energy = _energy(batches)
    between = [seconds for batch in batches for seconds in batch.between_s]
    first = [item.first_s for item in items if item.first_s is not None]
    cost = None if prices is None else prices.cost(seconds, energy)
    return Efficiency(
        seconds,
        tokens,
        tokens / seconds,
        resampled([item.seconds for item in items], lambda x: float(np.median(x))),
        resampled(first, lambda x: float(np.median(x))) if first else None,
        {f"p{p}": float(np.percentile(between, p)) for p in (50, 95, 99)} if between else {},
        peak_memory(),
        energy,
        cost,
        *(None if total is None or not right else total / right for total in (cost, seconds, tokens, energy.joules)),
    )


def _energy(batches: Sequence[Batch]) -> Energy:
    joules = [batch.energy.joules for batch in batches]
    if any(each is None for each in joules):
        return next(batch.energy for batch in batches if batch.energy.joules is None)
    return Energy(sum(each or 0.0 for each in joules), batches[0].energy.method)
