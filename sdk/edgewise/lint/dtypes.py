"""sdk, lint: the types of activations, of the cache, and of what goes in and out."""

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from edgewise.lint.finding import Finding, at, dtype_name, operator
from edgewise.lint.weights import FLOATS
from edgewise.options import known
from edgewise.target import Target

CACHE = ("past_key_values.", "present.")

# Constants that are float32 whatever the activations are: the scales of a cache.
APART = {"com.microsoft:GroupQueryAttention": (12, 13)}


def supported(model: ir.Model, target: Target) -> Iterator[Finding]:
    numerics = target.numerics
    for node in model.graph.all_nodes():
        name, types = operator(node), _computed_in(node)
        for dtype in sorted(types - set(numerics.activations)) if numerics.activations else ():
            yield Finding(
                "dtypes", at(node), f"it computes in {dtype}", f"lower with floats of {_any(numerics.activations)}"
            )
        for dtype in sorted(types - set(target.needs.types[name])) if name in target.needs.types else ():
            yield Finding(
                "dtypes", at(node), f"{name} has no kernel for {dtype}", f"choose {_any(target.needs.types[name])}"
            )
    for value in (*(v for v in model.graph.inputs if not v.is_initializer()), *model.graph.outputs):
        yield from _outside(value, target)


def _computed_in(node: ir.Node) -> set[str]:
    """The float types of what a node reads, as far as they are written down: inside of a graph only constants' are."""
    apart = APART.get(operator(node), ())
    inputs = [value for index, value in enumerate(node.inputs) if value is not None and index not in apart]
    return {dtype_name(value.dtype) for value in inputs if value.dtype in FLOATS}


def _outside(value: ir.Value, target: Target) -> Iterator[Finding]:
    """Of the cache any type counts; beside it floats are held against floats, whole numbers against whole numbers."""
    name, of_cache = dtype_name(value.dtype), str(value.name).startswith(CACHE)
    allowed = list(target.numerics.cache if of_cache else target.numerics.io)
    if not of_cache:
        allowed = [dtype for dtype in allowed if ("float" in dtype) == ("float" in name)]
    if name and allowed and name not in allowed:
        what = "keys and values are" if of_cache else "it is"
        yield Finding("dtypes", (f"'{value.name}'",), f"{what} {name}", f"choose {_any(allowed)}")


def _any(dtypes: Sequence[str]) -> str:
    return known(dtypes).replace(", ", " or ")
