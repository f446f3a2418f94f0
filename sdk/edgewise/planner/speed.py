"""sdk, planner: how long a graph takes on a device, by what it computes and what the device is known to do.

A product whose kernel was measured takes, for `tokens` tokens,

    operations / kernel.decode + (tokens - 1) * operations / kernel.prefill

and otherwise what bandwidth or arithmetic ask for, whichever is more (the roofline model, doi:10.1145/1498765.1498785):

    max(bytes / (bandwidth * efficiency.decode), tokens * operations / (compute * efficiency.prefill))

with half of the operations where two of every four weights are zero and the device skips them.
"""

from dataclasses import dataclass
from math import log2

from edgewise.planner.weights import Weights
from edgewise.planner.work import Heads, Product, Work
from edgewise.target import Hardware, Kernel, Number, Numerics

SKIPPED = 0.5  # of the operations, in 2:4


@dataclass(frozen=True)
class Step:
    """Seconds of one run of a graph, or of several."""

    products: float = 0.0
    attention: float = 0.0
    between: float = 0.0  # all other operators, and what each operator takes whatever it computes

    @property
    def total(self) -> float:
        return self.products + self.attention + self.between

    def __add__(self, other: "Step") -> "Step":
        return Step(self.products + other.products, self.attention + other.attention, self.between + other.between)


@dataclass(frozen=True)
class Rates:
    """What a device does in a second."""

    hardware: Hardware
    numerics: Numerics
    packed: bool = True  # whether weights are read as a processor's kernels keep them, or as they are stored

    @property
    def known(self) -> bool:
        """Whether the profile says enough for a prediction."""
        return bool(self.hardware.bandwidth and (self.hardware.kernels or self.hardware.compute))

    def step(self, work: Work, *, tokens: int, held: int, scores: int = 1) -> Step:
        """One run over `tokens` tokens that follow `held`; only the last `scores` of them get scores."""
        tokens = max(tokens, work.width)
        held = max(held, work.capacity)
        products = sum(self.product(p, scores if p.scored else tokens) for p in work.products)
        attention = sum(self.attention(heads, tokens, held) for heads in work.attention)
        dispatch = self.hardware.dispatch.value if self.hardware.dispatch else 0.0
        elements = work.elements * tokens + work.late_elements * scores
        moved = 4 * elements / self.bandwidth("float32")
        return Step(products, attention, moved + work.operators * dispatch)

    def product(self, product: Product, tokens: int) -> float:
        """Seconds of a product with so many tokens."""
        if kernel := self.kernel(product.weights):
            operations = product.padded
            return operations / kernel.decode.value + (tokens - 1) * operations / kernel.prefill.value
        reading = product.read(tokens, packed=self.packed) / self.bandwidth(product.weights.dtype)
        skipped = SKIPPED if product.zeros in self.numerics.sparsity else 0.0
        return max(reading, (1 - skipped) * tokens * product.operations / self.compute(product.weights.dtype))

    def attention(self, heads: Heads, tokens: int, held: int) -> float:
        """Seconds of the attention of one layer."""
        operations = heads.operations(tokens, held)
        if kernel := self.hardware.kernels.get("attention"):
            return operations / (kernel.decode if tokens == 1 else kernel.prefill).value
        reading = heads.bytes(heads.seen(tokens, held)) / self.bandwidth(heads.cache)
        return max(reading, operations / self.compute(heads.cache))

    def kernel(self, weights: Weights) -> Kernel | None:
        """What was measured for a format, or for the nearest block size of the same number format."""
        kernels = self.hardware.kernels
        if not weights.block or str(weights) in kernels:
            return kernels.get(str(weights))
        prefix = f"{weights.dtype} block "
        sizes = [int(name.removeprefix(prefix)) for name in kernels if name.startswith(prefix)]
        nearest = min(sizes, key=lambda size: abs(log2(size / (weights.block or 1))), default=None)
        return None if nearest is None else kernels[f"{prefix}{nearest}"]

    def bandwidth(self, dtype: str) -> float:
        """Bytes a second that are read of weights, or of keys and values, of that format."""
        assert self.hardware.bandwidth is not None
        return self.hardware.bandwidth.value * _share(self.hardware.efficiency.of("decode", dtype))

    def compute(self, dtype: str) -> float:
        """Operations a second with weights of that format; where it is not listed, with the slowest that is."""
        compute = {str(name): number.value for name, number in self.hardware.compute.items()}
        arithmetic = {str(name): str(kind) for name, kind in self.numerics.arithmetic.items()}.get(dtype, dtype)
        peak = compute.get(arithmetic, min(compute.values(), default=0.0))
        return peak * _share(self.hardware.efficiency.of("prefill", dtype)) or float("inf")


@dataclass(frozen=True)
class Chunks:
    """How a runner takes prompts in: so many tokens at a time, those of `least` or more in a graph of their own."""

    size: int
    prompts: Work | None = None
    least: int = 0


def prompt(rates: Rates, work: Work, tokens: int, chunks: Chunks) -> Step:
    """A prompt from an empty cache up to the scores of what follows it.

    Graphs of fixed lengths compute all but the last token, which the one that decodes computes.
    """
    prompts = chunks.prompts
    if prompts and prompts.width:
        runs = -(-(tokens - 1) // prompts.width)
        steps = (rates.step(prompts, tokens=prompts.width, held=index * prompts.width) for index in range(runs))
        return sum(steps, rates.step(work, tokens=1, held=tokens - 1))
    whole = Step()
    for held in range(0, tokens, chunks.size):
        count = min(chunks.size, tokens - held)
        graph = prompts if prompts and count >= chunks.least else work
        whole += rates.step(graph, tokens=count, held=held)
    return whole


def _share(number: Number | None) -> float:
    return 1.0 if number is None else number.value
