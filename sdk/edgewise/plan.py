"""sdk: the plan of a build, made before a weight is read: sizes before and after, memory, speed, whether it fits."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.calibration.plan import CalibrationPlan
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.errors import EdgewiseError, TargetError
from edgewise.exporters import export_graph
from edgewise.graph import remarks
from edgewise.memory import physical_memory
from edgewise.planner.advice import Speed
from edgewise.planner.memory import Memory
from edgewise.planner.outlook import Outlook, gb
from edgewise.prefill import Prefill
from edgewise.prepare import Prepared, open_checkpoint, prepare
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.sizes import sizes_of, total
from edgewise.steps import describe
from edgewise.target import Number, Target

BUILD_BYTES = 120 << 20  # what a build holds whatever the model: the interpreter, the graph, blocks of rows
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
    calibration: CalibrationPlan | None = None  # of the steps that measure the model
    remarks: tuple[str, ...] = ()  # of the steps, on what they do
    task: str = "text-generation"

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
            f"target '{self.target}' has {gb(self.memory.value)} of memory{share}, and this model takes "
            f"{gb(self.run_memory)} with a context of {self.context:,} tokens "
            f"({gb(self.needs.weights)} are weights, {gb(self.cache)} keys and values); {self.fitting}"
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
    exporter: str | None = None,
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
        exporter=exporter,
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
    drafts: dict[str, Draft] = {}
    exported: ir.Model | None = None
    for name in registry().devices():
        target = registry().get_target(name)
        key = _wants(target)
        try:
            if key not in drafts:
                exported = exported or export_graph(source)
                drafts[key] = Draft.of(
                    prepare(
                        source,
                        target=target,
                        recipe=recipe,
                        context=context,
                        ignore_config=(),
                        dry=True,
                        exported=exported,
                    )
                )
            yield name, drafts[key].on(target)
        except EdgewiseError as error:
            yield name, error


def make_plan(prepared: Prepared) -> Plan:
    """The plan of a build that is about to write."""
    return Draft.of(prepared).on(prepared.target)


@dataclass(frozen=True)
class Draft:
    """What of a plan is the same on all devices that want one graph."""

    recipe: tuple[str, ...]
    parts: Mapping[str, Part]
    total: Part
    context: int
    calibration: CalibrationPlan | None
    remarks: tuple[str, ...]
    task: str
    outlook: Outlook

    @classmethod
    def of(cls, prepared: Prepared) -> "Draft":
        settings = prepared.target.compile
        graphs = [graph for graph in (prepared.model, prepared.encoder) if graph]
        stored, written = prepared.stored, sizes_of(*graphs, halves=bool(settings and settings.halves))
        parts = {}
        for name in [*stored, *(name for name in written if name not in stored)]:
            parts[name] = Part(
                parameters=stored[name].parameters if name in stored else 0,
                before=stored[name].bytes if name in stored else 0,
                after=written[name].bytes if name in written else 0,
            )
        return cls(
            recipe=tuple(map(describe, prepared.recipe)),
            parts=parts,
            total=Part(total(stored).parameters, total(stored).bytes, total(written).bytes),
            context=prepared.context,
            calibration=prepared.calibration,
            remarks=remarks(prepared.model),
            task=prepared.facts.task,
            outlook=Outlook.of(prepared),
        )

    def on(self, target: Target) -> Plan:
        """The plan for a device."""
        context, outlook = self.context, replace(self.outlook, target=target)
        needs = outlook.memory(outlook.work, context)
        memory = target.hardware.memory or (_memory_here() if _computes_here(target) else None)
        usable = target.hardware.usable.value if target.hardware.usable else 1.0
        speed = outlook.speed(context)
        return Plan(
            target=target.name,
            recipe=self.recipe,
            parts=self.parts,
            context=context,
            download=self.total.after + outlook.beside + outlook.files,
            build_memory=max(
                BUILD_BYTES,
                self.calibration.memory if self.calibration else 0,
                target.compile.takes(self.total.parameters) if target.compile else 0,
            ),
            needs=needs,
            memory=memory,
            usable=usable,
            total=self.total,
            speed=speed,
            helps=outlook.helps(speed, context) if speed else (),
            fitting=outlook.fitting(context, int(memory.value * usable)) if memory else "",
            prefill=0 if target.needs.static else outlook.beside,
            prefill_memory=needs.total - outlook.memory(outlook.work, context, alone=True).total,
            calibration=self.calibration,
            remarks=self.remarks,
            task=self.task,
        )


def _wants(target: Target) -> str:
    """Equal for targets whose graphs are the same."""
    providers = [provider.name for provider in target.providers]
    wanted = target.recipe, target.lowering, target.needs, target.numerics, target.context, providers
    return repr((*wanted, replace(target.compile, options={}) if target.compile else None))


def _computes_here(target: Target) -> bool:
    """Whether it is a processor, which this machine has one of; the memory of a GPU is another."""
    provider = target.providers[0]
    return provider.name == CPU.name or provider.device == "cpu"


def _memory_here() -> Number | None:
    size = physical_memory()
    return None if size is None else Number(float(size), HERE, "measured")
