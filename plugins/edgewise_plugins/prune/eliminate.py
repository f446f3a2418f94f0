"""plugins, prune: which inputs of a matrix can go, and what the others become: least squares, solved exactly.

A matrix V reads inputs x, and should give y. With H the mean of x xᵀ and T the mean of y xᵀ, its best weights are
W = T H⁻¹. Both are damped, H by d I and T by d V: what the text does not tell stays as it was. Where only the inputs S
are left, the best weights are T_S H_SS⁻¹, and the mean squared error has grown: for a unit J of inputs that go
together, by

    tr(W_J P_JJ⁻¹ W_Jᵀ)        P = H⁻¹

(the optimal brain surgeon, Hassibi and Stork 1993, for groups as in ZipLM, arXiv 2302.04089). Units with the least of
it go first, some at a time, and W and P follow in closed form:

    W - W_J P_JJ⁻¹ P_J        P - P_:J P_JJ⁻¹ P_J
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.errors import GraphError, OptionError

ROUNDS = 64  # how often losses are computed anew


@dataclass(frozen=True)
class Moments:
    """Means over a text, of the inputs x of a matrix and of what it should give, y.

    weights: those of the matrix, `[outputs, inputs]`.
    gram: of x xᵀ, `[inputs, inputs]`; target: of y xᵀ, `[outputs, inputs]`.
    mean_x, mean_y: `[inputs]`, `[outputs]`.
    """

    weights: np.ndarray
    gram: np.ndarray
    target: np.ndarray
    mean_x: np.ndarray
    mean_y: np.ndarray


@dataclass(frozen=True)
class Refit:
    """Units that are left, in their order, and the weights of their inputs, `[outputs, inputs left]`, with a bias."""

    units: np.ndarray
    weights: np.ndarray
    bias: np.ndarray


def check_damping(damping: float) -> None:
    """Raises OptionError for what would make no inverse, or one of nothing."""
    if not 0 <= damping < math.inf:
        raise OptionError(f"damping: {damping} is not 0 or more, and finite")


def eliminate(moments: Moments, units: np.ndarray, keep: int, *, damping: float) -> Refit:
    """Leave `keep` of the units, `[units, inputs of each]`, those without which y would be missed most.

    `damping` times the mean of the diagonal of H is d.
    """
    (found,) = in_turn(moments, units, [keep], damping=damping)
    return found


def in_turn(moments: Moments, units: np.ndarray, keeps: Sequence[int], *, damping: float) -> Iterator[Refit]:
    """The same for fewer and fewer units: each of `keeps`, which fall."""
    inverse, weights = _inverse(moments, damping)
    left = np.arange(len(units))
    step = max(1, -(-(len(units) - keeps[-1]) // ROUNDS))
    for keep in keeps:
        while len(left) > keep:
            losses = _losses(inverse, weights, units[left])
            going = np.argsort(losses, kind="stable")[: min(step, len(left) - keep)]
            _remove(inverse, weights, units[left[going]].ravel())
            left = np.delete(left, going)
        inputs = units[left].ravel()
        yield Refit(left, weights[:, inputs].astype(np.float32, order="C"), weights[:, -1].astype(np.float32))


def refit(moments: Moments, units: np.ndarray, left: Sequence[int] | np.ndarray, *, damping: float) -> Refit:
    """The best weights for units that somebody else has chosen."""
    inverse, weights = _inverse(moments, damping)
    chosen = np.asarray(left)
    gone = np.setdiff1d(np.arange(len(units)), chosen)
    if len(gone):
        _remove(inverse, weights, units[gone].ravel())
    inputs = units[chosen].ravel()
    return Refit(chosen, weights[:, inputs].astype(np.float32, order="C"), weights[:, -1].astype(np.float32))


def _inverse(moments: Moments, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """P and W in float64; a last input that is always 1 gives the bias, and is never damped."""
    size = len(moments.gram)
    gram = np.empty((size + 1, size + 1))
    gram[:size, :size] = moments.gram
    gram[:size, size] = gram[size, :size] = moments.mean_x
    gram[size, size] = 1.0
    added = damping * (float(moments.gram.diagonal().mean()) or 1.0)
    gram[np.arange(size), np.arange(size)] += added
    try:
        inverse = np.linalg.inv(gram)
    except np.linalg.LinAlgError as error:
        raise GraphError(f"the second moments of {size} inputs are singular; a longer text helps") from error
    target = np.concatenate([moments.target + added * moments.weights, moments.mean_y[:, None]], axis=1)
    return inverse, target @ inverse


def _losses(inverse: np.ndarray, weights: np.ndarray, units: np.ndarray) -> np.ndarray:
    """By how much the error grows without each of the units."""
    if units.shape[1] == 1:
        columns = units[:, 0]
        return np.asarray((weights[:, columns] ** 2).sum(axis=0) / inverse[columns, columns])
    return np.array([_loss(inverse, weights, unit) for unit in units])


def _loss(inverse: np.ndarray, weights: np.ndarray, unit: np.ndarray) -> float:
    part = weights[:, unit]
    return float(np.einsum("oj,jo->", part, np.linalg.solve(inverse[np.ix_(unit, unit)], part.T)))


def _remove(inverse: np.ndarray, weights: np.ndarray, gone: np.ndarray) -> None:
    """The inputs `gone` are no more; what they had in W and P is 0 after that."""
    solved = np.linalg.solve(inverse[np.ix_(gone, gone)], inverse[gone])
    weights -= weights[:, gone] @ solved
    inverse -= inverse[:, gone] @ solved
    weights[:, gone] = 0
    inverse[gone] = inverse[:, gone] = 0
