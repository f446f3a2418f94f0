"""sdk, ledger: the whole of `edgewise compare`: bundles on one device, each counted, run, and held against one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgewise.bench.speed import RUNS
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.errors import OptionError
from edgewise.ledger.here import measured, not_here
from edgewise.ledger.variant import Variant, variant
from edgewise.memory import physical_memory
from edgewise.quality.evaluate import evaluate
from edgewise.quality.report import Quality
from edgewise.registry import registry
from edgewise.target import Target
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress


@dataclass(frozen=True)
class Ledger:
    """Bundles side by side, in the order they were given in. Quality is that beside the model `against`."""

    target: str
    context: int  # tokens that memory, active bytes and operations are of
    budget: int | None  # bytes of memory; None: the target does not say
    against: str
    variants: tuple[Variant, ...]
    notes: tuple[str, ...]  # what is not known, and why

    @property
    def reference(self) -> Variant:
        """What the others are held against: the model `against` where it is one of them, otherwise the first."""
        return next(
            (each for each in self.variants if Path(each.bundle).resolve() == Path(self.against).resolve()),
            self.variants[0],
        )

    def fits(self, variant: Variant) -> bool | None:
        """Whether a bundle runs within the budget; None where there is none."""
        return None if self.budget is None else variant.memory <= self.budget


def compare(
    bundles: Sequence[str | Path],
    *,
    text: CalibrationText,
    out_of_domain: CalibrationText | None = None,
    target: str | Target | None = None,
    against: str | Path | None = None,
    memory: int | None = None,
    context: int | None = None,
    runs: int = RUNS,
    progress: Progress | None = None,
) -> Ledger:
    """Hold bundles against each other on one device: what each takes, how fast it is, what it costs in quality.

    `against` is a bundle or a checkpoint, the first bundle unless it is given; `memory` is a budget in bytes, that of
    the target unless it is given; `runs` is how often speed is measured, where this machine is the target.
    Raises BundleError, OptionError, GraphError for a bundle whose graphs are compiled.
    """
    opened = [Bundle.open(bundle) for bundle in bundles]
    _check(opened, memory, runs)
    device = _target(target, opened)
    tokens = _context(context, opened)
    elsewhere = not_here(device)
    variants = [variant(bundle, device, tokens) for bundle in opened]
    notes = [*_unpredicted(device, variants), *_of_others(device, opened)]
    if elsewhere:
        notes.append(f"speed is not measured: {elsewhere}")
    elif runs:
        paces = measured([bundle.path for bundle in opened], runs=runs, progress=progress)
        variants = [replace(each, measured=pace) for each, pace in zip(variants, paces, strict=True)]
    reference = str(against or opened[0].path)
    inside, untold = _qualities(opened, text, reference, progress)
    notes += untold
    outside: Sequence[Quality | None] = [None] * len(opened)
    if out_of_domain:
        outside, untold = _qualities(opened, out_of_domain, reference, progress)
        notes += [note for note in untold if note not in notes]
    judged = zip(variants, inside, outside, strict=True)
    variants = [replace(each, inside=here, outside=there) for each, here, there in judged]
    return Ledger(device.name, tokens, _budget(memory, device, elsewhere), reference, tuple(variants), tuple(notes))


def _check(bundles: Sequence[Bundle], memory: int | None, runs: int) -> None:
    if not bundles:
        raise OptionError("there is no bundle to compare")
    if memory is not None and memory < 1:
        raise OptionError(f"memory is {memory}; it must be 1 byte or more")
    if runs < 0:
        raise OptionError(f"runs is {runs}; it must be 0 or more")


def _target(target: str | Target | None, bundles: Sequence[Bundle]) -> Target:
    """The device that was named, or the one that all bundles were built for."""
    if isinstance(target, Target):
        return target
    names = {bundle.manifest.target for bundle in bundles}
    if target is None and len(names) > 1:
        raise OptionError(f"the bundles were built for {' and '.join(sorted(names))}: name the target to compare for")
    return registry().get_target(target or names.pop())


def _context(asked: int | None, bundles: Sequence[Bundle]) -> int:
    longest = min(bundle.manifest.context for bundle in bundles)
    if asked is None:
        return longest
    if not 1 <= asked <= longest:
        raise OptionError(f"context: {asked} is not from 1 to {longest}, which all bundles hold")
    return asked


def _budget(memory: int | None, target: Target, elsewhere: str) -> int | None:
    """What was asked for, what the device leaves to a process, or what there is here, if here is the device."""
    hardware = target.hardware
    if memory is not None:
        return memory
    if hardware.memory:
        return int(hardware.memory.value * (hardware.usable.value if hardware.usable else 1))
    return None if elsewhere else physical_memory()


def _unpredicted(target: Target, variants: Sequence[Variant]) -> list[str]:
    if any(each.predicted for each in variants):
        return []
    return [
        f"speed is not predicted: the profile of {target.name} has no figures of it; `edgewise probe` measures the "
        "machine it runs on"
    ]


def _of_others(target: Target, bundles: Sequence[Bundle]) -> list[str]:
    """Bundles that were built for other providers than the target has."""
    own = [provider.name for provider in target.providers]
    return [
        f"{bundle.path} was built for {bundle.manifest.target}: its graph is taken as it is, and {target.name} would "
        "get another one"
        for bundle in bundles
        if [provider.name for provider in bundle.manifest.providers][: len(own)] != own
    ]


def _qualities(
    bundles: Sequence[Bundle], text: CalibrationText, reference: str, progress: Progress | None
) -> tuple[list[Quality], list[str]]:
    """The figures of bundles on a text; and why some are not held against the reference."""
    found = [_quality(bundle, text, reference, progress) for bundle in bundles]
    return [quality for quality, _ in found], [note for _, note in found if note]


def _quality(bundle: Bundle, text: CalibrationText, reference: str, progress: Progress | None) -> tuple[Quality, str]:
    """The figures of a bundle on a text, and why it is not held against the reference, where it is not."""
    text.sequences(Tokenizer.load(bundle.path))  # its own mistakes first
    if Path(reference).resolve() == bundle.path.resolve():
        return evaluate(bundle.path, text, progress=progress), ""
    try:
        return evaluate(bundle.path, text, against=reference, progress=progress), ""
    except OptionError as error:
        return evaluate(bundle.path, text, progress=progress), f"no divergence of {bundle.path}: {error}"
