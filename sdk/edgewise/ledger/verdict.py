"""sdk, ledger: the ledger in words: what fits, what is faster, what was given up for it, and what that costs."""

from collections.abc import Callable, Iterator

from edgewise.ledger.compare import Ledger
from edgewise.ledger.variant import Pace, Variant
from edgewise.quality.report import Quality

SAME = 0.005  # share of the weights, or of their bits, below which nothing has changed


def verdict(ledger: Ledger) -> Iterator[str]:
    """A sentence for each bundle but the reference, and one on the choice."""
    for each in ledger.variants:
        if each is not ledger.reference:
            parts = [changed(each, ledger.reference), _fit(ledger, each), *_speed(ledger, each), *_costs(each)]
            yield f"{each.bundle}: {'; '.join(parts)}"
    yield from _choice(ledger)


def changed(variant: Variant, reference: Variant) -> str:
    """How a bundle came to take less than another: weights removed, fewer of them active, fewer bits."""
    left, bits = variant.parameters / reference.parameters, variant.bits / reference.bits
    ways = []
    if left < 1 - SAME:
        ways.append(f"weights removed, {1 - left:.0%} of them")
    elif left > 1 + SAME:
        ways.append(f"{left - 1:.0%} more weights")
    if variant.experts and (not reference.experts or variant.active_experts < reference.active_experts):
        instead = f", not {reference.routing}" if reference.experts else ""
        ways.append(f"fewer active weights, all resident: a token uses {variant.routing}{instead}")
    if bits < 1 - SAME:
        ways.append(f"fewer bits, {variant.bits:.1f} a weight, not {reference.bits:.1f}")
    return ", ".join(ways) or "as many weights, as many of them active, in as many bits"


def _fit(ledger: Ledger, variant: Variant) -> str:
    if ledger.budget is None:
        return f"{_mb(variant.memory)} of memory, and whether they are there is not known"
    if ledger.fits(variant):
        return f"fits, with {_mb(ledger.budget - variant.memory)} to spare"
    return f"does NOT fit: {_mb(variant.memory - ledger.budget)} too much"


def _speed(ledger: Ledger, variant: Variant) -> Iterator[str]:
    both = variant, ledger.reference
    kind = "measured" if all(each.measured for each in both) else "predicted"
    mine, other = (each.measured if kind == "measured" else each.predicted for each in both)
    if mine and other:
        decode, prefill = mine.decode / other.decode, mine.prefill / other.prefill
        yield f"decodes {decode:.2f} times as fast, takes prompts in {prefill:.2f} times as fast ({kind})"


def _costs(variant: Variant) -> Iterator[str]:
    for quality, place in ((variant.inside, "in the domain"), (variant.outside, "outside of it")):
        if quality and quality.distance:
            yield f"{quality.distance.mean_kld:.4f} nats a token from the reference {place}"
        elif quality:
            yield f"{quality.bits_per_byte:.3f} bits per byte {place}"


def _choice(ledger: Ledger) -> Iterator[str]:
    """The fastest and the closest of those that fit."""
    fit = [each for each in ledger.variants if ledger.fits(each) is not False]
    if not fit:
        smallest = min(ledger.variants, key=lambda each: each.memory)
        yield f"nothing fits; {smallest.bundle} takes least: {_mb(smallest.memory)}"
        return
    best = {
        "the fastest": _best(fit, lambda each: each.pace and -each.pace.decode),
        "the smallest": _best(fit, lambda each: each.memory),
        "the closest to the text": _best(fit, lambda each: each.inside and each.inside.bits_per_byte),
    }
    praised = {each.bundle: [what for what, one in best.items() if one is each] for each in fit}
    of = "of those that fit, " if ledger.budget is not None else ""
    yield of + "; ".join(f"{bundle} is {' and '.join(whats)}" for bundle, whats in praised.items() if whats)


def _best(variants: list[Variant], cost: Callable[[Variant], float | Pace | Quality | None]) -> Variant | None:
    """The one that costs least; None where costs are not known."""
    costs = {index: found for index, each in enumerate(variants) if isinstance(found := cost(each), float | int)}
    return variants[min(costs, key=costs.__getitem__)] if len(costs) == len(variants) else None


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"
