"""tests: mixtures of experts written out in NumPy, and tiny models that have them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import parity
from canonical import calibrated, tokens
from edgewise.calibration.cache import scratch
from edgewise.calibration.routing import by_token, routing
from edgewise.calibration.walk import Walk
from edgewise.facts import Experts
from edgewise.graph import Roles, get_facts, linears
from edgewise.writer import write_model
from edgewise_targets.ort.lower import LowerOrt
from lowered import Lowered
from walks import export

FAMILIES = ["mixtral", "olmoe", "qwen2_moe", "qwen3_moe"]
TEXT, FRESH = tokens(6, 48), tokens(3, 32, seed=5)

Expert = dict[str, np.ndarray]


def made(family: str, home: Path, name: str = "", **overrides: Any) -> ir.Model:
    """A tiny model, calibrated on TEXT."""
    return calibrated(export(family, home, name, **overrides), TEXT)


def mixture_of(model: ir.Model, layer: int) -> Experts:
    found = get_facts(model).experts[layer]
    assert found is not None
    return found


def router_of(model: ir.Model, layer: int) -> np.ndarray:
    (found,) = (one.matrix.numpy() for one in linears(model) if one.role == "router" and one.layer == layer)
    return np.asarray(found, np.float64)


def experts_of(model: ir.Model, layer: int) -> list[Expert]:
    """The matrices of each expert by role."""
    found: list[Expert] = []
    for linear in linears(model):
        if linear.layer == layer and linear.expert is not None:
            found.extend({} for _ in range(linear.expert + 1 - len(found)))
            found[linear.expert][linear.role] = linear.matrix.numpy().astype(np.float64)
    return found


def gates(logits: np.ndarray, mixture: Experts, threshold: float = 0.0) -> np.ndarray:
    """Of each expert, `[tokens, experts]`, of the router's logits; those below a share of the largest are 0."""
    found = np.zeros_like(logits)
    for token, row in enumerate(logits):
        probabilities = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        chosen = [
            e
            for e in np.argsort(-probabilities)[: mixture.active]
            if probabilities[e] >= threshold * max(probabilities)
        ]
        total = probabilities[chosen].sum() if mixture.normalized else 1
        found[token, chosen] = 1 if mixture.equal else probabilities[chosen] / total
    return found


def compute(expert: Expert, x: np.ndarray) -> np.ndarray:
    wide = x @ expert["expert.gate"].T
    found: np.ndarray = (wide / (1 + np.exp(-wide)) * (x @ expert["expert.up"].T)) @ expert["expert.down"].T
    return found


def mix(x: np.ndarray, experts: list[Expert], gates: np.ndarray) -> np.ndarray:
    """What a mixture makes of tokens `[tokens, hidden]`, but for a shared expert."""
    found: np.ndarray = np.sum([gates[:, n, None] * compute(expert, x) for n, expert in enumerate(experts)], axis=0)
    return found


def seen(model: ir.Model, layer: int, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What enters the router of a layer, the gates, and what the routed experts add up to: `[tokens, ...]` each."""
    roles, found = Roles.of(model), routing(model)[layer]
    (router,) = (one for one in linears(model) if one.role == "router" and one.layer == layer)
    names = [str(router.node.inputs[0].name), found.gates, str(roles.one("expert.sum", layer).outputs[0].name)]  # type: ignore[union-attr]
    with scratch() as folder:
        walk = Walk(model, sequences, folder=folder)
        for number in range(layer):
            walk.advance(number)
        batches = [[by_token(values[name]) for name in names] for values in walk.values(layer, names)]
    x, gates, y = (np.concatenate(parts).astype(np.float64) for parts in zip(*batches, strict=True))
    return x, gates, y


def lowered_logits(model: ir.Model, sequences: np.ndarray, folder: Path) -> np.ndarray:
    """Of ONNX Runtime's own operators, activations in float32: float32 `[tokens, vocabulary]`."""
    path = folder / "lowered.onnx"
    write_model(LowerOrt(accuracy_level=0)(model).model, path)
    session = Lowered(parity.load(path), get_facts(model), 256)
    return np.concatenate(session(list(sequences)))
