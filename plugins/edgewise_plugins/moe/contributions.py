"""plugins, moe: a router fitted to what experts contribute: how long what each adds is, by least squares on a text.

With x what enters the layer and f(x) what an expert makes of it, the rows of the router are those for which W x is
closest to log |f(x)|, but for what all experts of a token have in common. On examples/pycoder it chooses better than
the neurons that stand for their experts in CMoE: half of the error that these leave above the best choice, or less.
"""

from collections.abc import Sequence

import numpy as np

DAMPING = 0.01  # of the mean of the diagonal of the second moments
SHORTEST = 1e-6  # whose logarithm is taken


class RouterFit:
    """Sums over tokens, a chunk at a time."""

    def __init__(self, downs: Sequence[np.ndarray], hidden: int) -> None:
        self.downs = downs  # of each expert, [hidden, neurons]
        self.gram, self.cross = np.zeros((hidden, hidden)), np.zeros((len(downs), hidden))

    def add(self, x: np.ndarray, neurons: Sequence[np.ndarray]) -> None:
        """What entered the layer, `[tokens, hidden]`, and what the neurons of each expert gave, `[tokens, neurons]`."""
        inputs = x.astype(np.float64)
        lengths = [np.linalg.norm(h @ down.T, axis=1) for h, down in zip(neurons, self.downs, strict=True)]
        wanted = np.log(np.maximum(np.stack(lengths, axis=1, dtype=np.float64), SHORTEST))
        self.gram += inputs.T @ inputs
        self.cross += (wanted - wanted.mean(axis=1, keepdims=True)).T @ inputs

    def router(self) -> np.ndarray:
        """float32 `[experts, hidden]`."""
        gram = self.gram.copy()
        gram[np.diag_indices_from(gram)] += DAMPING * (float(gram.diagonal().mean()) or 1.0)
        return np.linalg.solve(gram, self.cross.T).T.astype(np.float32, order="C")


def chosen(x: np.ndarray, router: np.ndarray, active: int) -> np.ndarray:
    """Whether each expert is among the active ones of a token, `[tokens, experts]`."""
    logits = x @ router.T
    found = np.zeros(logits.shape, bool)
    np.put_along_axis(found, np.argsort(-logits, axis=1, kind="stable")[:, :active], True, axis=1)
    return found
