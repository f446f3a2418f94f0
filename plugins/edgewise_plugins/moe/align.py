"""plugins, moe: experts averaged unit by unit, after each unit of one has found its like among those of the other.

The hidden units of an expert can stand in any order, and the sign of `up` and of `down` can change together: neither
changes what it computes. Units are matched by the correlation of what they give on a text (as neurons of dense networks
in arXiv 1412.0233, and of experts in MC-SMoE, arXiv 2310.01334), so that the sum over pairs is largest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgewise_plugins.moe.assignment import assign


@dataclass(frozen=True)
class Expert:
    """down(act(gate x) * up x): gate and up `[units, hidden]`, down `[hidden, units]`."""

    gate: np.ndarray
    up: np.ndarray
    down: np.ndarray

    def reordered(self, order: np.ndarray, signs: np.ndarray) -> "Expert":
        """The same function, with its units in another order, and `up` and `down` of some with the other sign."""
        return Expert(self.gate[order], self.up[order] * signs[:, None], self.down[:, order] * signs)


class Correlations:
    """Of the units of two experts, `[ours, theirs]`, over tokens that come a chunk at a time."""

    def __init__(self, units: int) -> None:
        self.tokens = 0
        self.sums, self.squares = np.zeros((2, 2, units))
        self.products = np.zeros((units, units))

    def add(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        """What both give on some tokens, `[tokens, units]` each."""
        both = np.stack([ours, theirs]).astype(np.float64)
        self.tokens += len(ours)
        self.sums += both.sum(axis=1)
        self.squares += np.square(both).sum(axis=1)
        self.products += both[0].T @ both[1]

    def values(self) -> np.ndarray:
        """From -1 to 1; 0 for a unit that never changes."""
        means = self.sums / max(1, self.tokens)
        spread = np.sqrt(np.maximum(self.squares / max(1, self.tokens) - means**2, 0))
        sizes = np.outer(*spread)
        covariances = self.products / max(1, self.tokens) - np.outer(*means)
        found: np.ndarray = np.divide(covariances, sizes, out=np.zeros_like(sizes), where=sizes > 0)
        return found


def match(correlations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each unit of one expert that of another, and a sign, so that correlations add up to most."""
    order = assign(-np.abs(correlations))
    signs = np.where(correlations[np.arange(len(order)), order] < 0, -1, 1).astype(np.float32)
    return order, signs


def average(experts: Sequence[Expert], shares: np.ndarray) -> Expert:
    """The mean of experts whose units correspond."""

    def mean(part: str) -> np.ndarray:
        found: np.ndarray = np.average([getattr(expert, part) for expert in experts], axis=0, weights=shares)
        return found.astype(np.float32)

    return Expert(mean("gate"), mean("up"), mean("down"))
