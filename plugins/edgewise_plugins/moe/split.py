"""plugins, moe: the neurons of an MLP dealt out: those that most tokens use, and groups of those that fire together.

As CMoE (arXiv 2502.04416) does it, from what a text makes of the neurons: for each token those with the largest effect
|h| |w|, with w the column of `down` that reads a neuron, are active: as many as a token is to use. Neurons with the
highest rate of that are shared. The others are clustered, by the tokens that they are active on, into groups of one
size.
"""

from dataclasses import dataclass

import numpy as np

ROUNDS = 8  # of clustering


@dataclass(frozen=True)
class Split:
    """Neurons, ascending: those of the shared expert, which may be none, and of each routed one."""

    shared: np.ndarray
    routed: tuple[np.ndarray, ...]


def split(effects: np.ndarray, slices: int, shared: int, active: int) -> Split:
    """`shared` of so many slices of one size for all tokens, and `active` others for each.

    effects: `[tokens, neurons]`, from 0.
    """
    width = effects.shape[1] // slices
    marks = _active(effects, (shared + active) * width)
    order = np.argsort(-marks.mean(axis=0), kind="stable")
    always, others = np.sort(order[: shared * width]), np.sort(order[shared * width :])
    groups = _clusters(marks[:, others].T, slices - shared)
    return Split(always, tuple(others[group] for group in groups))


def _active(effects: np.ndarray, count: int) -> np.ndarray:
    """1 for the neurons with the largest effect on a token, `count` of them, 0 for the others."""
    found = np.zeros_like(effects)
    largest = np.argpartition(-effects, count - 1, axis=1)[:, :count]
    np.put_along_axis(found, largest, 1, axis=1)
    return found


def _clusters(points: np.ndarray, count: int) -> list[np.ndarray]:
    """Groups of one size, of points `[points, features]`: k-means in which each centre takes its share and no more."""
    size = len(points) // count
    centres = points[_apart(points, count)]
    groups: list[np.ndarray] = []
    for _ in range(ROUNDS):
        groups = _dealt(_distances(points, centres), size)
        after = np.stack([points[group].mean(axis=0) for group in groups])
        if np.array_equal(after, centres):
            break
        centres = after
    return groups


def _apart(points: np.ndarray, count: int) -> list[int]:
    """The points to begin with: the one of largest norm, then each time the one farthest from those taken."""
    taken = [int(np.square(points).sum(axis=1).argmax())]
    nearest = _distances(points, points[taken])[:, 0]
    while len(taken) < count:
        taken.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(points, points[taken[-1:]])[:, 0])
    return taken


def _distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """`[points, centres]`, squared."""
    own, theirs = np.square(points).sum(axis=1), np.square(centres).sum(axis=1)
    found: np.ndarray = own[:, None] + theirs - 2 * points @ centres.T
    return found


def _dealt(distances: np.ndarray, size: int) -> list[np.ndarray]:
    """Each point to the nearest centre that has room, those first that would lose most by another one."""
    ordered = np.sort(distances, axis=1)
    regret = ordered[:, min(1, ordered.shape[1] - 1)] - ordered[:, 0]
    groups: list[list[int]] = [[] for _ in range(distances.shape[1])]
    for point in np.argsort(-regret, kind="stable"):
        for centre in np.argsort(distances[point], kind="stable"):
            if len(groups[centre]) < size:
                groups[centre].append(int(point))
                break
    return [np.sort(group) for group in groups]
