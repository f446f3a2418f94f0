"""plugins, moe: which experts of a layer become one: those that can stand for each other on a text.

With g the gates, f(x) what an expert makes of a token, and w its share of the gates of its group, a group costs

    sum over a, b of it of  w_b sum over tokens of g_a^2 |f_a(x) - f_b(x)|^2

which is what tokens lose at most where their expert's output becomes the group's mean. Groups begin as single experts,
and the two that cost least more together than apart become one, until few enough are left.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np

Groups = list[list[int]]


def squares(gates: np.ndarray, outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Sum over tokens of g_a^2 |f_a(x) - f_b(x)|^2, `[experts, experts]`.

    gates: `[tokens, experts]`; outputs: f of each expert, `[tokens, hidden]`.
    """
    count = len(outputs)
    found = np.zeros((count, count))
    for a in range(count):
        own = np.flatnonzero(gates[:, a])
        weights = np.square(gates[own, a], dtype=np.float64)
        for b in range(count):
            if a != b:
                distance = np.square(outputs[a][own] - outputs[b][own]).sum(axis=1, dtype=np.float64)
                found[a, b] = weights @ distance
    return found


def group(squares: np.ndarray, usage: np.ndarray, count: int) -> Groups:
    """So many groups, of the squares above and the sum of gates of each expert; the most used of a group is first."""

    @cache
    def cost(members: tuple[int, ...]) -> float:
        return float(squares[np.ix_(members, members)].sum(axis=0) @ shares(usage, members))

    def grown(pair: tuple[tuple[int, ...], tuple[int, ...]]) -> float:
        return cost(tuple(sorted(pair[0] + pair[1]))) - cost(pair[0]) - cost(pair[1])

    groups: list[tuple[int, ...]] = [(expert,) for expert in range(len(usage))]
    while len(groups) > count:
        first, second = min(combinations(groups, 2), key=grown)
        groups = [*(some for some in groups if some not in (first, second)), tuple(sorted(first + second))]
    return sorted(sorted(some, key=lambda expert: (-usage[expert], expert)) for some in groups)


def shares(usage: np.ndarray, members: Sequence[int]) -> np.ndarray:
    """Of each member, of what the group is used; alike where no token is given to any."""
    own = np.asarray(usage, np.float64)[list(members)]
    return own / own.sum() if own.sum() else np.full(len(own), 1 / len(own))
