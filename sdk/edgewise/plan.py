"""sdk: the plan of a build, made before a weight is read: sizes before and after, memory, speed, whether it fits."""

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgewise.calibration.plan import CalibrationPlan
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.errors import EdgewiseError, TargetError
from edgewise.planner import memory
from edgewise.planner.advice import Speed, advice, decode_limit, prefill_limit
from edgewise.planner.count import count
from edgewise.planner.memory import Memory
from edgewise.planner.smaller import largest_that_fits
from edgewise.planner.speed import Rates, prompt
from edgewise.planner.work import Work
from edgewise.prefill import FROM_TOKENS, Prefill
from edgewise.prepare import Prepared, open_checkpoint, prepare
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.sizes import bytes_beside, sizes_of, total
from edgewise.steps import describe
from edgewise.target import Number, Target

BUILD_BYTES = 120 << 20  # what a build holds whatever the model: the interpreter, the graph, blocks of rows
NODE_BYTES = 720  # of an operator in the file of a graph
PROMPT = 512  # tokens of the prompt that a plan speaks of, or what the context holds
CPU = "CPUExecutionProvider"
TOKENIZER = "tokenizer.json"

HERE = "this machine"


@dataclass(frozen=True)
class Part:
    """A part of the model: parameters, bytes in the checkpoint, bytes in the bundle."""

    parameters: int
    before: int
    after: int


@dataclass(frozen=True)
class Plan:
    """What a build is going to do, and what to expect of it. All sizes in bytes."""

    target: str
    recipe: tuple[str, ...]  # the steps, as one would write them
    parts: Mapping[str, Part]
    context: int  # tokens that a session gets by default
    download: int  # the whole bundle
    build_memory: int  # expected peak of the build, before its load check
    needs: Memory  # of a runner with a full context
    memory: Number | None  # what the device has
    usable: float  # share of it that one process can have
    total: Part
    speed: Speed | None = None  # None: the profile has no figures for it
    helps: tuple[str, ...] = ()  # what would make it faster
    fitting: str = ""  # where it does not fit: what would
    prefill: int = 0  # of a second graph for prompts, beside the parts
    prefill_memory: int = 0  # of the run's: that, and its own copy of the lm_head
    calibration: CalibrationPlan | None = None  # at most, with whole second moments

    @property
    def cache(self) -> int:
        """Keys and values of a full context."""
        return self.needs.cache

    @property
    def run_memory(self) -> int:
        """Expected peak of a runner with the default context."""
        return self.needs.total

    @property
    def fits(self) -> bool | None:
        """Whether the runner fits into the memory of the target; None where that is not known."""
        return None if self.memory is None else self.run_memory <= self.memory.value * self.usable

    def refuse_what_does_not_fit(self) -> None:
        """Raises TargetError for a bundle that would not run on the device that the profile describes."""
        if self.memory is None or self.fits or self.memory.source == HERE:
            return
        share = f", of which one process gets {self.usable:.0%}" if self.usable < 1 else ""
        raise TargetError(
            f"target '{self.target}' has {_gb(self.memory.value)} of memory{share}, and this model takes "
            f"{_gb(self.run_memory)} with a context of {self.context:,} tokens "
            f"({_gb(self.needs.weights)} are weights, {_gb(self.cache)} keys and values); {self.fitting}"
        )


def plan_build(
    checkpoint: str | Path | Checkpoint,
    *,
    target: str | Target = "cpu-x64",
    recipe: Recipe | Path | None = None,
    context: int | None = None,
    ignore_config: Collection[str] = (),
    calibration: CalibrationText | None = None,
    prefill: Prefill | None = None,
) -> Plan:
    """The plan of the build with the same arguments. Raises what the build would raise before it reads a weight."""
    prepared = prepare(
        checkpoint,
        target=target,
        recipe=recipe,
        context=context,
        ignore_config=ignore_config,
        calibration=calibration,
        dry=True,
        prefill=prefill,
    )
    return make_plan(prepared)


def plan_everywhere(
    checkpoint: str | Path | Checkpoint,
    *,
    recipe: Recipe | Path | None = None,
    context: int | None = None,
    ignore_config: Collection[str] = (),
) -> Iterator[tuple[str, Plan | EdgewiseError]]:
    """For every installed device its plan, or why there is none. Devices that want the same graph share the work."""
    source = open_checkpoint(checkpoint, ignore_config=ignore_config)
    made: dict[str, Prepared | EdgewiseError] = {}
    for name in registry().devices():
        target = registry().get_target(name)
        key = _wants(target)
        if key not in made:
            try:
                made[key] = prepare(source, target=target, recipe=recipe, context=context, ignore_config=(), dry=True)
            except EdgewiseError as error:
                made[key] = error
        found = made[key]
        yield name, found if isinstance(found, EdgewiseError) else make_plan(found, target)


def make_plan(prepared: Prepared, target: Target | None = None) -> Plan:
    """The plan of a build that is about to write, or of one for another `target` that wants the same graph."""
    target = target or prepared.target
    model, context = prepared.model, prepared.context
    stored, written = prepared.stored, sizes_of(model)
    parts = {}
    for name in [*stored, *(name for name in written if name not in stored)]:
        parts[name] = Part(
            parameters=stored[name].parameters if name in stored else 0,
            before=stored[name].bytes if name in stored else 0,
            after=written[name].bytes if name in written else 0,
        )
    whole = Part(total(stored).parameters, total(stored).bytes, total(written).bytes)
    beside = bytes_beside(prepared.prompts, model) if prepared.prompts else 0
    takes = _Takes.of(prepared, target, beside)
    needs = takes.memory(takes.work, context)
    device = target.hardware.memory or _memory_here()
    usable = target.hardware.usable.value if target.hardware.usable else 1.0
    speed, helps = _speed(takes, context)
    plan = Plan(
        target=target.name,
        recipe=tuple(map(describe, prepared.recipe)),
        parts=parts,
        context=context,
        download=whole.after + beside + takes.files,
        build_memory=max(BUILD_BYTES, prepared.calibration.memory if prepared.calibration else 0),
        needs=needs,
        memory=device,
        usable=usable,
        total=whole,
        speed=speed,
        helps=helps,
        fitting=takes.fitting(context, int(device.value * usable)) if device else "",
        prefill=beside,
        prefill_memory=needs.total - takes.memory(takes.work, context, alone=True).total,
        calibration=prepared.calibration,
    )
    return plan


@dataclass(frozen=True)
class _Takes:
    """What is counted of the graphs of a build, and how their memory adds up on its device."""

    target: Target
    work: Work
    prompts: Work | None
    beside: int  # bytes of the second graph's own
    files: int  # bytes of a bundle that are no weights
    tokenizer: int  # bytes

    @classmethod
    def of(cls, prepared: Prepared, target: Target, beside: int) -> "_Takes":
        fixed = prepared.target.needs.static
        capacity = prepared.context if fixed else 0
        graphs: list[ir.Model] = [prepared.model, *([prepared.prompts] if prepared.prompts else [])]
        work = count(graphs[0], capacity=capacity, width=1 if fixed else 0)
        prompts = None
        if prepared.prompts:
            prompts = count(prepared.prompts, capacity=capacity, width=fixed.prefill if fixed else 0)
        sizes = {name: path.stat().st_size for name, path in prepared.checkpoint.companions.items()}
        operators = sum(sum(1 for _ in graph.graph) for graph in graphs)
        files = sum(sizes.values()) + NODE_BYTES * operators
        return cls(target, work, prompts, beside, files, sizes.get(TOKENIZER, 0))

    def memory(self, work: Work, context: int, *, alone: bool = False) -> Memory:
        """Of a runner of that model; `alone`: without the second graph."""
        libraries = self.target.hardware.runtime
        runtime = int(libraries.value if libraries else memory.LIBRARIES + memory.TOKENIZER * self.tokenizer)
        if self.target.providers[0].name == CPU:
            prompts = None if alone else self.prompts
            return memory.on_processor(work, context=context, runtime=runtime, prompts=prompts)
        return memory.on_accelerator(work, context=context, runtime=runtime, beside=0 if alone else self.beside)

    def fitting(self, context: int, room: int) -> str:
        """What would fit into so many bytes, where this does not; empty where it does."""
        if self.memory(self.work, context).total <= room:
            return ""
        numerics = self.target.numerics
        if self.prompts and not self.prompts.width and self.memory(self.work, context, alone=True).total <= room:
            return "without a second graph for prompts it would fit"

        def takes(work: Work, tokens: int) -> int:
            return self.memory(work, tokens, alone=True).total

        if found := largest_that_fits(self.work, numerics, context, takes, room):
            return f"{found} would fit: {_gb(found.memory)}"
        return "no format that it multiplies with and no context make it small enough: choose a smaller model"


def _speed(takes: _Takes, context: int) -> tuple[Speed | None, tuple[str, ...]]:
    """How fast it will be, and what would help; None where the profile has no figures."""
    rates = Rates(takes.target.hardware, takes.target.numerics)
    if not rates.known:
        return None, ()
    work, tokens = takes.work, min(PROMPT, context)
    first = prompt(rates, work, tokens, prompts=takes.prompts, prompts_from=FROM_TOKENS).total
    decode = rates.step(work, tokens=1, held=tokens - 1).total
    power = takes.target.hardware.power
    speed = Speed(
        prompt=tokens,
        first_token_s=first,
        decode_tokens_per_s=1 / decode,
        full_tokens_per_s=1 / rates.step(work, tokens=1, held=context - 1).total,
        joules_per_token=power.value * decode if power else None,
        decode_limit=decode_limit(rates, work, tokens),
        prefill_limit=prefill_limit(rates, takes.prompts or work, tokens),
    )
    integers = takes.prompts is None and takes.target.providers[0].name == CPU
    return speed, tuple(advice(rates, work, speed, context=context, integers=integers))


def _wants(target: Target) -> str:
    """Equal for targets whose graphs are the same."""
    providers = [provider.name for provider in target.providers]
    return repr((target.recipe, target.lowering, target.needs, target.numerics, target.context, providers))


def _memory_here() -> Number | None:
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None
    return Number(float(pages * os.sysconf("SC_PAGE_SIZE")), HERE, "measured")


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
