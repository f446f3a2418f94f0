"""sdk, lint: what is found, and the provider that a target runs on."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from edgewise.target import Target

SHOWN = 2  # places that a sentence names


@dataclass(frozen=True)
class Finding:
    """Something in a graph that a target does not take: what is wrong, and what to do about it.

    >>> str(Finding("opset", ("the graph",), "is of opset 27, and 23 is the highest", "export it with opset 23"))
    'the graph is of opset 27, and 23 is the highest; export it with opset 23'
    """

    rule: str
    places: tuple[str, ...]  # nodes, weights or inputs, quoted; or "the graph"
    problem: str
    fix: str

    def __str__(self) -> str:
        return (
            f"{self.where}: {self.problem}; {self.fix}"
            if self._is_named
            else f"{self.where} {self.problem}; {self.fix}"
        )

    @property
    def where(self) -> str:
        """The first places, and how many more there are."""
        more = len(self.places) - SHOWN
        return ", ".join(self.places[:SHOWN]) + (f" and {more} more" if more > 0 else "")

    @property
    def _is_named(self) -> bool:
        return self.places[0].startswith("'")


Rule = Callable[[ir.Model, Target], Iterable[Finding]]


def at(node: ir.Node) -> tuple[str, ...]:
    """A node as a place."""
    return (f"'{node.name or node.op_type}'",)


def operator(node: ir.Node) -> str:
    """An operator as profiles write it: `MatMul`, `com.microsoft:MatMulNBits`."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"


def provider(target: Target) -> str:
    """The execution provider that is to compute everything."""
    return target.providers[0].name


def dtype_name(dtype: ir.DataType | None) -> str:
    """A dtype as profiles write it: `float32`, `float16`, `int8`; empty where it is not known."""
    if dtype is None:
        return ""
    return "float32" if dtype == ir.DataType.FLOAT else dtype.name.lower()
