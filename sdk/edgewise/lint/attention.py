"""sdk, lint: what GroupQueryAttention computes on each provider: one schema, and kernels that know parts of it.

Seen in ONNX Runtime 1.31: on the CPU by running, of the others in their source.
"""

from collections.abc import Callable, Iterator, Mapping

import onnx_ir as ir

from edgewise.bundle.manifest import CPU
from edgewise.lint.finding import Finding, at, operator, provider
from edgewise.names import CUDA, DIRECTML, WEBGPU
from edgewise.target import Target

OPERATOR = "com.microsoft:GroupQueryAttention"
KEY, PAST, SINKS, K_SCALE, V_SCALE, Q_NORM = 1, 3, 11, 12, 13, 14

Check = Callable[[ir.Node], tuple[str, str] | None]


def supported(model: ir.Model, target: Target) -> Iterator[Finding]:
    checks = (*EVERYWHERE, *CHECKS.get(provider(target), ()))
    for node in model.graph.all_nodes():
        for check in checks if operator(node) == OPERATOR else ():
            if problem := check(node):
                yield Finding("attention", at(node), *problem)


def _no_present(node: ir.Node) -> tuple[str, str] | None:
    given = [value for value in node.outputs[1:3] if value.name]
    if _input(node, PAST) is not None and len(given) < 2:
        return "it has a past and gives no present: scores are silently wrong", "make both present outputs"
    return None


def _norms_inside(node: ir.Node) -> tuple[str, str] | None:
    if _input(node, Q_NORM) is not None:
        return "norms of queries and keys inside of attention are refused", 'lower with head_norms = "reshaped"'
    return None


def _scales_of_channels(node: ir.Node) -> tuple[str, str] | None:
    scales = _input(node, K_SCALE), _input(node, V_SCALE)
    if scales[0] is None:
        return None
    if node.attributes.get_string("k_quant_type", "NONE") != "PER_TENSOR" or scales[0] is not scales[1]:
        return "a cache in int8 is fast with one scale for keys and values", "quantize-cache with scales = 'tensor'"
    return None


def _quantized_cache(node: ir.Node) -> tuple[str, str] | None:
    if _input(node, K_SCALE) is not None:
        return "there is no kernel for a cache with scales", "leave quantize-cache out"
    return None


def _packed(node: ir.Node) -> tuple[str, str] | None:
    if _input(node, KEY) is None:
        return "queries, keys and values packed in one input are not read", "lower with packed = false"
    return None


def _rotary_inside(node: ir.Node) -> tuple[str, str] | None:
    if node.attributes.get_int("do_rotary", 0):
        return "it does not rotate queries and keys", 'lower with rotary = "before"'
    return None


def _window(node: ir.Node) -> tuple[str, str] | None:
    if node.attributes.get_int("local_window_size", -1) >= 0 or node.attributes.get_float("softcap"):
        return "it knows no window and no softcap, and would ignore them", "choose another target for this model"
    return None


def _sinks(node: ir.Node) -> tuple[str, str] | None:
    if _input(node, SINKS) is not None:
        return "it knows no sinks of heads, and would ignore them", "choose another target for this model"
    return None


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if len(node.inputs) > index else None


EVERYWHERE: tuple[Check, ...] = (_no_present,)
CHECKS: Mapping[str, tuple[Check, ...]] = {
    CPU.name: (_norms_inside,),
    CUDA: (_scales_of_channels,),
    WEBGPU: (_quantized_cache,),
    DIRECTML: (_norms_inside, _packed, _rotary_inside, _window, _sinks, _quantized_cache),
}
