"""sdk, planner: a build on its device: memory, speed, what would help, what would fit; from what was counted."""

from dataclasses import dataclass, replace

import onnx_ir as ir

from edgewise import prefill
from edgewise.bundle.manifest import CHUNK, CPU
from edgewise.facts import AnyFacts, Facts
from edgewise.planner import memory
from edgewise.planner.advice import Speed, advice, decode_limit, prefill_limit
from edgewise.planner.count import count
from edgewise.planner.memory import Memory
from edgewise.planner.smaller import largest_that_fits
from edgewise.planner.speed import Chunks, Rates, prompt
from edgewise.planner.work import Work
from edgewise.prepare import Prepared
from edgewise.sizes import bytes_beside, sizes_of, total
from edgewise.target import Target

NODE_BYTES = 720  # of an operator in the file of a graph
PROMPT = 512  # tokens of the prompt that a plan speaks of, or what the context holds
TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Outlook:
    """What was counted of the graphs of a build, and what it comes to on a device."""

    target: Target
    work: Work
    prompts: Work | None  # of a second graph for prompts, or of an encoder
    beside: int  # bytes of the second graph's own
    files: int  # bytes of a bundle that are no weights
    tokenizer: int  # bytes
    crossed: int = 0  # bytes of what an encoder gives for its longest text; 0: there is none

    @classmethod
    def of(cls, prepared: Prepared) -> "Outlook":
        fixed = prepared.target.needs.static
        capacity = prepared.context if fixed else 0
        graphs: list[ir.Model] = [graph for graph in (prepared.model, prepared.prompts, prepared.encoder) if graph]
        work = count(graphs[0], capacity=capacity, width=1 if fixed else 0)
        prompts = None
        if prepared.prompts:
            prompts = count(prepared.prompts, capacity=capacity, width=fixed.prefill if fixed else 0)
        if prepared.encoder:
            prompts = count(prepared.encoder)
        sizes = prepared.companions.sizes()
        operators = sum(sum(1 for _ in graph.graph) for graph in graphs)
        settings = prepared.target.compile
        if settings and settings.halves:
            work, prompts = work.halved(), prompts.halved() if prompts else None
        code = settings.code.value if settings and settings.code else NODE_BYTES
        files = sum(sizes.values()) + int(code * operators)
        crossed = _crossed(prepared.facts)
        return cls(prepared.target, work, prompts, _beside(prepared), files, sizes.get(TOKENIZER, 0), crossed)

    @property
    def chunks(self) -> Chunks:
        """How prompts are taken in."""
        return Chunks(prefill.CHUNK, self.prompts, prefill.FROM_TOKENS) if self.prompts else Chunks(CHUNK)

    def memory(self, work: Work, context: int, *, alone: bool = False) -> Memory:
        """Of a runner of that model; `alone`: without the second graph, which an encoder is not."""
        alone = alone and not self.crossed
        libraries = self.target.hardware.runtime
        runtime = int(libraries.value if libraries else memory.LIBRARIES + memory.TOKENIZER * self.tokenizer)
        if self._on_processor:
            prompts = None if alone else self.prompts
            chunk = self.chunks.size if prompts else CHUNK
            found = memory.on_processor(work, context=context, runtime=runtime, chunk=chunk, prompts=prompts)
            return replace(found, cache=found.cache + self.crossed)
        beside = 0 if alone else self.beside
        return memory.on_accelerator(work, context=context, runtime=runtime, chunk=CHUNK, beside=beside)

    def fitting(self, context: int, room: int) -> str:
        """What would fit into so many bytes, where this does not; empty where it does."""
        if self.memory(self.work, context).total <= room:
            return ""
        numerics = self.target.numerics
        if (
            self.prompts
            and not (self.prompts.width or self.crossed)
            and self.memory(self.work, context, alone=True).total <= room
        ):
            return "without a second graph for prompts it would fit"

        def takes(work: Work, tokens: int) -> int:
            return self.memory(work, tokens, alone=True).total

        if found := largest_that_fits(self.work, numerics, context, takes, room):
            return f"{found} would fit: {gb(found.memory)}"
        return "no format that it multiplies with and no context make it small enough: choose a smaller model"

    def speed(self, context: int) -> Speed | None:
        """How fast it will be; None where the profile has no figures."""
        rates, work, tokens = self.rates, self.work, min(PROMPT, context)
        if not rates.known or not work.attention:  # nobody waits for the next token of an encoder
            return None
        decode = rates.step(work, tokens=1, held=tokens - 1).total
        power = self.target.hardware.power
        return Speed(
            prompt=tokens,
            first_token_s=prompt(rates, work, tokens, self.chunks).total,
            decode_tokens_per_s=1 / decode,
            full_prompt_s=prompt(rates, work, context, self.chunks).total,
            full_tokens_per_s=1 / rates.step(work, tokens=1, held=context - 1).total,
            joules_per_token=power.value * decode if power else None,
            decode_limit=decode_limit(rates, work, tokens),
            prefill_limit=prefill_limit(rates, work, tokens, self.chunks),
        )

    def pace(self, prompt_tokens: int, new_tokens: int) -> tuple[float, float] | None:
        """Tokens a second of a prompt, and of tokens one by one, both from an empty cache, as `bench` measures them.

        None where the profile has no figures.
        """
        if not (rates := self.rates).known:
            return None
        steps = [rates.step(self.work, tokens=1, held=held).total for held in (0, new_tokens - 1)]
        whole = prompt(rates, self.work, prompt_tokens, self.chunks).total
        return prompt_tokens / whole, 2 / sum(steps)

    def helps(self, speed: Speed, context: int) -> tuple[str, ...]:
        """What would make it faster."""
        second = None if self.prompts or not self._on_processor else Chunks(prefill.CHUNK, least=prefill.FROM_TOKENS)
        return tuple(advice(self.rates, self.work, speed, context=context, integers=second))

    @property
    def _on_processor(self) -> bool:
        return self.target.providers[0].name == CPU.name

    @property
    def rates(self) -> Rates:
        """What the device does in a second."""
        return Rates(self.target.hardware, self.target.numerics, packed=self._on_processor)


def _crossed(facts: AnyFacts) -> int:
    """Bytes of what an encoder gives its decoder for the longest text."""
    return facts.cache_bytes(facts.source.context_length) if isinstance(facts, Facts) and facts.source else 0


def _beside(prepared: Prepared) -> int:
    """Bytes of the second graph's own: where each is compiled by itself, of all of it."""
    if prepared.prompts is None:
        return 0
    settings = prepared.target.compile
    if settings and not settings.share_weights:
        return total(sizes_of(prepared.prompts, halves=settings.halves)).bytes
    return bytes_beside(prepared.prompts, prepared.model)


def gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
