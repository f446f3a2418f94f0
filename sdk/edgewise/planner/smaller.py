"""sdk, planner: the same model in fewer bits, or with a shorter context, by the same arithmetic: what would fit."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from edgewise.planner.weights import Weights
from edgewise.planner.work import Work
from edgewise.target import Numerics

SHORTEST = 512  # tokens of a context that would be advised
USUAL_BITS = 4  # fewer cost so much quality that a shorter context comes before them
BLOCK = 128  # columns that share a scale, where the device takes such blocks


@dataclass(frozen=True)
class Smaller:
    """Weights in another format, and a context."""

    weights: Weights
    context: int
    memory: int  # bytes that a runner takes then

    def __str__(self) -> str:
        blocks = f" in blocks of {self.weights.block}" if self.weights.block else ""
        return f"{self.weights.dtype}{blocks} with a context of {self.context:,} tokens"


def formats(numerics: Numerics) -> list[Weights]:
    """Formats with blocks that a device multiplies with, those with most bits first."""
    sizes = [size for size in numerics.block_sizes if size]
    block = BLOCK if BLOCK in sizes or not sizes else max(sizes)
    known = numerics.weights or ("int8", "int4")
    return [Weights(dtype, block) for dtype in ("int8", "int4", "int2") if dtype in known]


def smaller(work: Work, numerics: Numerics) -> Iterator[tuple[Weights, Work]]:
    """The model in each format with fewer bits than most of its weights have."""
    for weights in formats(numerics):
        changed = work.with_weights(lambda old, new=weights: new if new.bits < old.bits else old)  # type: ignore[misc]
        if changed.stored < work.stored:
            yield weights, changed


def largest_that_fits(
    work: Work, numerics: Numerics, context: int, takes: Callable[[Work, int], int], room: int
) -> Smaller | None:
    """What changes least and fits: 8 bits, 4 bits, shorter contexts with those, then fewer bits. None: nothing fits."""
    main = max(work.products, key=lambda product: product.operations)
    found = [(main.weights, work), *smaller(work, numerics)]
    usual = [each for each in found if each[0].bits >= USUAL_BITS] or found[:1]
    rest = [each for each in found if each not in usual]
    shorter = list(_contexts(context))
    options = [(each, context) for each in usual]
    options += [(usual[-1], tokens) for tokens in shorter]
    options += [(each, tokens) for each in rest for tokens in (context, *shorter)]
    for (weights, changed), tokens in options:
        if (memory := takes(changed, tokens)) <= room:
            return Smaller(weights, tokens, memory)
    return None


def _contexts(context: int) -> Iterator[int]:
    """Half of it, a quarter, and so on."""
    while (context := context // 2) >= SHORTEST:
        yield context
