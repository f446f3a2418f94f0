"""sdk, planner: a mixture of which only some experts stay in memory: what is read from storage instead, predicted.

A token of a model with experts of `bytes` each in layer l takes

    the step with all weights in memory + sum over l of misses a token in l * bytes / storage

as if nothing was computed while an expert is read. Which experts stay: those that a text asks for most, or those that
were used last (LRU).
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from edgewise.calibration.trace import Trace
from edgewise.errors import OptionError, TargetError
from edgewise.planner.outlook import PROMPT, Outlook
from edgewise.planner.work import Product, Work


@dataclass(frozen=True)
class Residency:
    """One way to choose the experts that stay."""

    hits: float  # share of the experts that tokens are given to which were in memory
    tokens_per_s: float  # decoding, predicted


@dataclass(frozen=True)
class Offload:
    """A device that keeps `resident` experts of each layer in memory, predicted from the routing of a text."""

    resident: int
    memory: int  # bytes of a runner with a full context: with room for the experts of a token in one layer beside those
    popular: Residency  # those that the text asks for most stay, always the same
    recent: Residency  # those that were used last
    all_resident: float  # tokens a second with all experts in memory


def offload(outlook: Outlook, found: Trace, *, resident: int, context: int) -> Offload:
    """What is to be expected. Raises TargetError where the profile lacks figures, OptionError."""
    sizes, storage, rates = _sizes(outlook, len(found)), outlook.target.hardware.storage, outlook.rates
    if storage is None or not rates.known:
        what, name = "storage" if rates.known else "speed", outlook.target.name
        raise TargetError(f"the profile of '{name}' has no figures of its {what}: one of your own may state them")
    count = min(given.shape[1] for given in found.values())
    if not 0 <= resident <= count:
        raise OptionError(f"resident experts: {resident} is not from 0 to {count}, the experts of a layer")
    step = rates.step(outlook.work, tokens=1, held=min(PROMPT, context) - 1).total

    def residency(misses: dict[int, int]) -> Residency:
        asked = sum(int(given.sum()) for given in found.values())
        read = sum(misses[layer] / len(given) * size for (layer, given), size in zip(found.items(), sizes, strict=True))
        return Residency(1 - sum(misses.values()) / max(1, asked), 1 / (step + read / storage.value))

    room = max(size * float(given.sum(axis=1).max()) for size, given in zip(sizes, found.values(), strict=True))
    kept = outlook.memory(_keeping(outlook.work, resident), context).total
    return Offload(
        resident=resident,
        memory=int(kept + (room if resident < count else 0)),
        popular=residency({layer: popular_misses(given, resident) for layer, given in found.items()}),
        recent=residency({layer: recent_misses(given, resident) for layer, given in found.items()}),
        all_resident=1 / step,
    )


def popular_misses(given: np.ndarray, resident: int) -> int:
    """How often tokens, bool `[tokens, experts]`, are given to others than the experts that are asked for most."""
    counts = np.sort(given.sum(axis=0))
    return int(counts[: len(counts) - resident].sum())


def recent_misses(given: np.ndarray, resident: int) -> int:
    """How often tokens are given to others than those that were used last; experts of one token come in their order."""
    kept, misses = OrderedDict[int, None](), 0
    for expert in np.nonzero(given)[1].tolist():
        if expert in kept:
            kept.move_to_end(expert)
            continue
        misses += 1
        kept[expert] = None
        if len(kept) > resident:
            kept.popitem(last=False)
    return misses


def _sizes(outlook: Outlook, layers: int) -> list[float]:
    """Bytes of an expert, layer by layer."""
    experts = [product for product in outlook.work.products if product.role == "expert"]
    if not experts:
        raise TargetError(f"target '{outlook.target.name}' computes all experts for each token: none can be left out")
    matrices = len(experts) // layers
    return [sum(map(_bytes, experts[start : start + matrices])) for start in range(0, len(experts), matrices)]


def _bytes(product: Product) -> float:
    return product.stored / product.count


def _keeping(work: Work, resident: int) -> Work:
    """The model with so many experts."""
    products = (replace(p, count=resident) if p.role == "expert" else p for p in work.products)
    return replace(work, products=tuple(products))
