"""sdk, lint: holds a graph against the profile of a target, before anybody tries to run it there."""

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from edgewise.errors import GraphError, TargetError
from edgewise.lint import attention, dtypes, graphs, operators, slow, weights
from edgewise.lint.finding import Finding, Rule
from edgewise.target import Target

RULES: Mapping[str, Rule] = {
    "opset": graphs.opset,
    "ir-version": graphs.ir_version,
    "lengths": graphs.lengths,
    "layout": graphs.layout,
    "rings": graphs.rings,
    "size": graphs.size,
    "operators": operators.allowed,
    "attention": attention.supported,
    "weights": weights.formats,
    "slow": slow.formats,
    "dtypes": dtypes.supported,
}


def lint(model: ir.Model, target: Target) -> tuple[Finding, ...]:
    """What the target does not take, or only slowly; nothing for a graph that is fit to run there.

    No weight is read. What is wrong in one way at several places is one finding. Raises GraphError for a graph whose
    nodes lack what their operators must have.
    """
    merged: dict[tuple[str, str, str], Finding] = {}
    for name in RULES:
        for found in _findings(name, model, target):
            key = (found.rule, found.problem, found.fix)
            places = merged[key].places if key in merged else ()
            merged[key] = replace(found, places=places + tuple(p for p in found.places if p not in places))
    return tuple(merged.values())


def _findings(name: str, model: ir.Model, target: Target) -> list[Finding]:
    try:
        return list(RULES[name](model, target))
    except (IndexError, TypeError) as error:  # an input that is not there, an attribute of another type
        raise GraphError(f"the graph is damaged: rule '{name}' cannot read one of its nodes: {error}") from error


def refuse(model: ir.Model, target: Target) -> None:
    """Raises TargetError with the first finding, for a graph that has any."""
    found = lint(model, target)
    if found:
        more = f" ({len(found) - 1} more: edgewise lint)" if len(found) > 1 else ""
        raise TargetError(f"target '{target.name}': {found[0]}{more}")
