"""targets: what a dialect makes of an attention's specification: all of it, or it refuses."""

from collections.abc import Collection
from dataclasses import fields

from edgewise.errors import LoweringError
from edgewise.facts import Attention


def refuse_unknown(spec: Attention, translated: Collection[str], *, dialect: str, layer: int) -> None:
    """Raises LoweringError for a specification that says more than the fields that a dialect translates, or less."""
    if not spec.stated:
        raise LoweringError(
            f"layer {layer}: what its attention computes is not stated (its graph comes from another exporter, and was "
            f"not recognised), so the dialect '{dialect}' cannot express it: take a target that 'lower-ort' lowers to"
        )
    for field in fields(spec):
        if field.name not in translated and getattr(spec, field.name) != field.default:
            raise LoweringError(
                f"layer {layer}: attention with '{field.name}' = {getattr(spec, field.name)!r} is not something that "
                f"the dialect '{dialect}' expresses; it knows {', '.join(sorted(translated))}"
            )
