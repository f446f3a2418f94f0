"""sdk: the plan of a build, made before a weight is read: sizes before and after, memory, whether it fits."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewise.calibration.plan import CalibrationPlan
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.errors import TargetError
from edgewise.prefill import Prefill
from edgewise.prepare import Prepared, prepare
from edgewise.recipe import Recipe
from edgewise.sizes import bytes_beside, head_bytes, sizes_of, total
from edgewise.steps import describe
from edgewise.target import Number, Target

BUILD_BYTES = 120 << 20  # what a build holds whatever the model: the interpreter, the graph, blocks of rows
RUN_BYTES = 100 << 20  # what a runner holds besides weights and cache: the libraries, activations

HERE = "this machine"


@dataclass(frozen=True)
class Part:
    """A part of the model: parameters, bytes in the checkpoint, bytes in the bundle."""

    parameters: int
    before: int
    after: int


@dataclass(frozen=True)
class Plan:
    """What a build is going to do. All sizes in bytes."""

    target: str
    recipe: tuple[str, ...]  # the steps, as one would write them
    parts: Mapping[str, Part]
    context: int  # tokens that a session gets by default
    cache: int  # keys and values of so many tokens
    build_memory: int  # expected peak of the build, before its load check
    run_memory: int  # expected peak of a runner with the default context
    memory: Number | None  # what the device has
    total: Part
    prefill: int = 0  # of a second graph for prompts, beside the parts
    prefill_memory: int = 0  # of the run's: that, and its own copy of the lm_head
    calibration: CalibrationPlan | None = None  # at most, with whole second moments

    @property
    def fits(self) -> bool | None:
        """Whether the runner fits into the memory of the target; None where that is not known."""
        return None if self.memory is None else self.run_memory <= self.memory.value

    def refuse_what_does_not_fit(self) -> None:
        """Raises TargetError for a bundle that would not run on the device that the profile describes."""
        if self.memory is not None and not self.fits and self.memory.source != HERE:
            raise TargetError(
                f"target '{self.target}' has {self.memory.value / 1e9:.2f} GB of memory, and this model takes "
                f"{self.run_memory / 1e9:.2f} GB with a context of {self.context} tokens "
                f"({self.total.after / 1e9:.2f} GB are weights); use fewer bits, or a shorter context"
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


def make_plan(prepared: Prepared) -> Plan:
    """The plan of a build that is about to write."""
    stored, written = prepared.stored, sizes_of(prepared.model)
    parts = {}
    for name in [*stored, *(name for name in written if name not in stored)]:
        parts[name] = Part(
            parameters=stored[name].parameters if name in stored else 0,
            before=stored[name].bytes if name in stored else 0,
            after=written[name].bytes if name in written else 0,
        )
    whole = Part(total(stored).parameters, total(stored).bytes, total(written).bytes)
    cache = prepared.facts.cache_bytes(prepared.context)
    prompts = prompts_memory = 0
    if prepared.prompts:
        prompts = bytes_beside(prepared.prompts, prepared.model)
        prompts_memory = prompts + head_bytes(prepared.prompts)
    return Plan(
        target=prepared.target.name,
        recipe=tuple(map(describe, prepared.recipe)),
        parts=parts,
        context=prepared.context,
        cache=cache,
        build_memory=max(BUILD_BYTES, prepared.calibration.memory if prepared.calibration else 0),
        run_memory=whole.after + prompts_memory + cache + RUN_BYTES,
        memory=prepared.target.hardware.memory or _memory_here(),
        total=whole,
        prefill=prompts,
        prefill_memory=prompts_memory,
        calibration=prepared.calibration,
    )


def _memory_here() -> Number | None:
    try:
        pages = os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None
    return Number(float(pages * os.sysconf("SC_PAGE_SIZE")), HERE, "measured")
