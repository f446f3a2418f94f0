"""sdk, planner: what limits a model on a device, and what would help."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from edgewise.planner.smaller import USUAL_BITS, smaller
from edgewise.planner.speed import Chunks, Rates, Step, prompt
from edgewise.planner.weights import Weights
from edgewise.planner.work import Product, Work

Limit = Literal["bandwidth", "compute", "attention", "operators"]

MEMORY_BOUND = 0.6  # share of the time of products that reading their weights takes, where it is what they wait for
WORTH = 1.15  # times faster, to be worth saying


@dataclass(frozen=True)
class Speed:
    """How fast a bundle is expected to be."""

    prompt: int  # tokens
    first_token_s: float
    decode_tokens_per_s: float  # after the prompt
    full_prompt_s: float  # a prompt that fills the context
    full_tokens_per_s: float  # when the context is full
    joules_per_token: float | None  # of decoding, where the device's power is known
    decode_limit: Limit
    prefill_limit: Limit


def decode_limit(rates: Rates, work: Work, held: int) -> Limit:
    """What decoding waits for."""
    return _limit(rates, work, rates.step(work, tokens=1, held=held), 1)


def prefill_limit(rates: Rates, work: Work, tokens: int, chunks: Chunks) -> Limit:
    """What a prompt waits for."""
    graph, size = chunks.prompts or work, min(tokens, chunks.size)
    return _limit(rates, graph, rates.step(graph, tokens=size, held=tokens - size), size)


def _limit(rates: Rates, work: Work, step: Step, tokens: int) -> Limit:
    if step.attention > max(step.products, step.between):
        return "attention"
    if step.between > step.products:
        return "operators"
    read = sum(p.read(tokens, packed=rates.packed) / rates.bandwidth(p.weights.dtype) for p in work.products)
    return "bandwidth" if read >= MEMORY_BOUND * step.products else "compute"


def advice(rates: Rates, work: Work, speed: Speed, *, context: int, integers: Chunks | None) -> Iterator[str]:
    """Sentences on what would make it faster. `integers`: how prompts would be taken in by a second graph, in int8."""
    now = rates.step(work, tokens=1, held=speed.prompt).total
    if speed.decode_limit in ("bandwidth", "compute"):
        for weights, changed in smaller(work, rates.numerics):
            gain = now / rates.step(changed, tokens=1, held=speed.prompt).total
            if gain >= WORTH and weights.bits >= USUAL_BITS:
                yield f"{weights.dtype} would decode {gain:.1f} times faster"
    full = rates.step(work, tokens=1, held=context - 1)
    if full.attention > max(full.products, full.between):
        share = full.attention / full.total
        yield f"a shorter context: with {context:,} tokens, {share:.0%} of a step is attention"
    if speed.decode_limit == "operators":
        yield "fewer layers: most of a step is what operators take whatever they compute"
    if integers and speed.prefill_limit == "compute" and rates.kernel(Weights("int8", 0)):
        second = replace(integers, prompts=replace(work, products=tuple(_in_integers(work))))
        gain = speed.first_token_s / prompt(rates, work, speed.prompt, second).total
        if gain >= WORTH:
            yield f"--prefill int8 would take prompts in {gain:.1f} times faster"


def _in_integers(work: Work) -> Iterator[Product]:
    """Products of the layers as W8A8; the lm_head stays."""
    for product in work.products:
        yield product if product.role == "lm_head" else replace(product, weights=Weights("int8", 0))
