"""sdk, lint: operators that a target has, or has not."""

from collections.abc import Iterator

import onnx_ir as ir

from edgewise.lint.finding import Finding, at, operator
from edgewise.options import known
from edgewise.target import Target

CONTAINER = "com.microsoft:EPContext"  # of what a provider has compiled, and so knows


def allowed(model: ir.Model, target: Target) -> Iterator[Finding]:
    needs = target.needs
    lowering = known(" ".join([step.name, *(f"{k}={v}" for k, v in step.options.items())]) for step in target.lowering)
    for node in model.graph.all_nodes():
        name = operator(node)
        if name in needs.denied or (needs.only and name not in (*needs.only, CONTAINER)):
            yield Finding(
                "operators", at(node), f"the device has no {name}", f"lower it as the target does: {lowering}"
            )
