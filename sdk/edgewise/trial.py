"""sdk: what a bundle goes through before it takes its place: it is run, compiled, judged, measured, as was asked."""

import dataclasses
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.ahead import Compiled, check_compiler, compile_graphs, runs_on
from edgewise.bundle.contents import GRAPH, PREFILL, finish
from edgewise.bundle.manifest import CPU, File, Manifest
from edgewise.bundle.probe import ask
from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.encoders import refuse_of_decoders
from edgewise.errors import BundleError, OptionError, RecipeError
from edgewise.extras import require
from edgewise.facts import EncoderFacts
from edgewise.parity import compare
from edgewise.placement import Placement, is_emulated
from edgewise.plan import Plan
from edgewise.prepare import Prepared
from edgewise.target import Target
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import Progress

logger = logging.getLogger(__name__)

HeldOut = np.ndarray | tuple[str, ...]  # sequences of tokens `[sequences, tokens]`; of an encoder, texts


@dataclass
class Unfinished:
    """A bundle in the making: the files of a folder, and what its card says beside the plan."""

    folder: Path
    files: dict[str, File]
    prepared: Prepared
    plan: Plan
    measured: dict[str, Any] = field(default_factory=dict)

    def finish(self) -> Manifest:
        """Write the card and the manifest of all that is known by now."""
        return finish(self.folder, self.files, self.prepared, self.plan, self.measured)


@dataclass(frozen=True)
class Trial:
    """Which checks a bundle is put through. Raises OptionError for those that make no sense together."""

    load: bool = True
    allow_fallback: bool = False
    quality: CalibrationText | None = None
    measure: bool = False
    parity: int = 0  # tokens

    def __post_init__(self) -> None:
        if self.allow_fallback and not self.load:
            raise OptionError("allow_fallback is of no use without the load check, which finds what falls back")
        if self.parity < 0:
            raise OptionError(f"parity: {self.parity} is not a number of tokens")

    def require(self) -> None:
        """Raises MissingExtra where what runs a bundle is not installed."""
        if self.load or self.measure or self.quality:
            require("onnxruntime")

    def refuse_impossible(self, prepared: Prepared) -> None:
        """Refuse what cannot be done for a model and its target, before the weights are read."""
        target = prepared.target
        if prepared.gate and not self.quality:
            raise RecipeError("the recipe has a gate, which needs a text to measure the bundle on: --quality-text FILE")
        if prepared.gate:
            prepared.gate.refuse_other(prepared.facts.task)
        if isinstance(prepared.facts, EncoderFacts):
            refuse_of_decoders(prepared.facts, {"parity": self.parity, "measure": self.measure})
        check_compiler(target)
        if self.parity and all(provider.name == CPU.name for provider in target.providers):
            raise OptionError(
                f"parity: {self.parity} tokens cannot be compared; target '{target.name}' runs on the processor"
            )
        if self.parity >= prepared.context:
            raise OptionError(
                f"parity: {self.parity:,} tokens after a prompt do not fit a context of {prepared.context:,}; "
                "compare fewer, or take a larger --context"
            )
        if self.measure and is_emulated(target.providers):
            raise OptionError(f"measure: the speed of an emulator says nothing about target '{target.name}'")

    def read(self, folder: Path, prepared: Prepared) -> HeldOut | None:
        """What the bundle is to be judged on, read before anything that takes long."""
        if self.quality is None:
            return None
        if isinstance(prepared.facts, EncoderFacts):
            from edgewise.quality.encoders import read_lines

            return read_lines(self.quality, Tokenizer.load(folder))
        longest = prepared.context if prepared.target.needs.static else prepared.facts.context_length
        text = dataclasses.replace(self.quality, length=min(self.quality.length, longest))
        return text.sequences(Tokenizer.load(folder))

    def run(self, bundle: Unfinished, heldout: HeldOut | None, progress: Progress | None) -> Manifest:
        """Put a bundle through its checks. What was compiled is installed after them, and they see the graphs."""
        manifest, target = bundle.finish(), bundle.prepared.target
        if self.load:
            bundle.measured["placement"] = _check_load(bundle.folder, target, self.allow_fallback)
            manifest = bundle.finish()
        compiled = _compile(bundle, self.allow_fallback)
        if self.quality and heldout is not None:
            bundle.measured["quality"] = {"text": self.quality.path.name, **_judge(bundle, manifest, heldout, progress)}
        if self.measure:
            bundle.measured["speed"] = _measure(bundle.folder, progress)
        if self.parity:
            bundle.measured["parity"] = compare(bundle.folder, tokens=self.parity)
        if compiled:
            bundle.files, bundle.measured["compiled"] = compiled.install(bundle.files), compiled.card
            bundle.prepared = dataclasses.replace(bundle.prepared, target=runs_on(target))
        return bundle.finish()


def _check_load(folder: Path, target: Target, allow_fallback: bool) -> dict[str, Any]:
    """Run a token through the bundle; for its card, who computes what.

    Raises BundleError where it does not run, TargetError where nodes fall back and may not.
    """
    started = time.perf_counter()
    answer = ask("graph", folder)
    if answer.problem:
        raise BundleError(f"the bundle was built, and does not run: {answer.problem}")
    placement = Placement.read(answer.said)
    if placement.not_run:
        logger.warning("not run here: %s", placement.not_run)
    if not allow_fallback:
        placement.refuse_fallen(target.providers)
    logger.info("load check: %.2f s", time.perf_counter() - started)
    return placement.card(target.providers)


def _compile(bundle: Unfinished, allow_fallback: bool) -> Compiled | None:
    """The graphs, compiled for a target that wants it; those that were written stay until they are installed."""
    target = bundle.prepared.target
    if not target.compile:
        return None
    graphs = [GRAPH, PREFILL] if bundle.prepared.prompts else [GRAPH]
    return compile_graphs(bundle.folder, graphs, target, target.compile, allow_fallback=allow_fallback)


def _judge(bundle: Unfinished, manifest: Manifest, heldout: HeldOut, progress: Progress | None) -> dict[str, Any]:
    """How good a bundle is, for its card. Raises GateError."""
    finished = Bundle(bundle.folder, manifest)
    if isinstance(heldout, tuple):
        from edgewise.quality.encoders import judge_encoder

        return judge_encoder(finished, bundle.prepared, heldout)
    from edgewise.quality.judge import judge

    return judge(finished, bundle.prepared, heldout, progress=progress)


def _measure(folder: Path, progress: Progress | None) -> dict[str, float | int | str]:
    """The speed of a bundle on this machine, for its card."""
    from edgewise.bench.host import processor
    from edgewise.bench.speed import measure
    from edgewise.runtime.runner import Runner
    from edgewise.runtime.threads import physical_cores

    with Runner.open(folder, verify=False) as runner:
        speed = measure(runner, progress=progress)
    return {
        "decode_tokens_per_s": round(speed.decode.mean, 1),
        "prefill_tokens_per_s": round(speed.prefill.mean, 1),
        "prompt_tokens": speed.prefill.tokens,
        "new_tokens": speed.decode.tokens,
        "threads": physical_cores(),
        "processor": processor(),
    }
