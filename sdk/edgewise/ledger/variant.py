"""sdk, ledger: one bundle's line: bytes, operations, speed, and how far it is from the reference."""

from dataclasses import dataclass
from statistics import fmean

from edgewise.bench.speed import DECODE, PREFILL
from edgewise.bundle.read import Bundle
from edgewise.ledger.counted import counted
from edgewise.quality.report import Quality
from edgewise.target import Target


@dataclass(frozen=True)
class Pace:
    """Tokens a second, as `bench` counts them: of a prompt, and one by one."""

    prefill: float
    decode: float


@dataclass(frozen=True)
class Variant:
    """A bundle on a device. Sizes in bytes; `active` and `operations` are of one token, at the end of the context."""

    bundle: str
    parameters: int  # all of them are resident
    active_parameters: int  # that a token is multiplied with: of experts, those that it is given to
    experts: float  # of a layer, on average over those that have any; 0: it is dense
    active_experts: float  # of them, that a token is given to
    bits: float  # of a parameter, on average, with scales and zero points
    weights: int  # as they are stored, of all graphs
    memory: int  # of a runner with a full context
    active: int  # that a token reads: matrices, a row of the embedding, keys and values
    operations: int  # of products and attention; a multiply-add is two
    predicted: Pace | None
    measured: Pace | None = None
    inside: Quality | None = None  # on the text
    outside: Quality | None = None  # on one of another domain

    @property
    def pace(self) -> Pace | None:
        """What is known best."""
        return self.measured or self.predicted

    @property
    def routing(self) -> str:
        """How many experts a token is given to: `2 of 8 experts`, or fewer where small gates are skipped."""
        return f"{self.active_experts:.3g} of {self.experts:.3g} experts"


def variant(bundle: Bundle, target: Target, context: int) -> Variant:
    """What can be said of a bundle before it runs. Raises GraphError for one that is compiled."""
    facts = bundle.manifest.language_model
    outlook = counted(bundle, target)
    work, longest = outlook.work, bundle.manifest.context
    mixtures = [mixture for mixture in facts.experts if mixture]
    pace = outlook.pace(min(PREFILL, longest), min(DECODE, longest))
    return Variant(
        bundle=str(bundle.path),
        parameters=work.parameters,
        active_parameters=work.active_parameters,
        experts=fmean(mixture.count for mixture in mixtures) if mixtures else 0.0,
        active_experts=fmean(mixture.evaluated or mixture.active for mixture in mixtures) if mixtures else 0.0,
        bits=8 * (work.stored - work.constants) / work.parameters,
        weights=work.stored + outlook.beside,
        memory=outlook.memory(work, context).total,
        active=work.active(context - 1),
        operations=work.operations_after(context - 1),
        predicted=Pace(*pace) if pace else None,
    )
