"""sdk: rings: how little of its cache a layer with a window has to keep, in graphs of fixed lengths."""

from dataclasses import replace

from edgewise.facts import Facts

STEP = 64  # positions: rings are whole steps, as kernels go over keys in blocks


def slots(window: int | None, margin: int, context: int) -> int:
    """Positions of a layer's ring; 0 where it keeps the whole context: it sees all of it, or a ring is no shorter.

    A run needs the `window - 1` positions before it. `margin` is how far a session may go back and have these still:
    what it wrote meanwhile took the place of as many others.
    """
    if window is None:
        return 0
    size = -(-(window - 1 + margin) // STEP) * STEP
    return size if size < context else 0


def describe(facts: Facts, context: int) -> str:
    """Which layers have a ring, and what that makes of a cache for so many tokens."""
    rings = sorted({(a.window or 0, a.ring) for a in facts.attention if a.ring})
    windows, sizes = (" or ".join(f"{number:,}" for number in numbers) for numbers in zip(*rings, strict=True))
    count, layers = sum(bool(a.ring) for a in facts.attention), facts.layers
    whole = replace(facts, attention=tuple(replace(a, ring=0) for a in facts.attention))
    share = facts.cache_bytes(context) / whole.cache_bytes(context)
    return (
        f"{count} of {layers} layers look back {windows} tokens and, as lengths are fixed, keep the last {sizes} in a "
        f"ring: the cache of {context:,} tokens takes {share:.0%} of what it would"
    )
