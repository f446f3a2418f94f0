"""plugins, moe: a partner for each row among the columns, so that the costs add up to the least possible.

The Hungarian method (Kuhn 1955) by shortest augmenting paths, with potentials u of rows and v of columns: the reduced
cost c - u - v is never negative, and 0 for pairs that are matched.
"""

import numpy as np


def assign(costs: np.ndarray) -> np.ndarray:
    """The column of each row, int64 `[n]`, of costs `[n, n]`. O(n^3)."""
    n = len(costs)
    u, v = np.zeros(n), np.zeros(n + 1)
    row_of = np.full(n + 1, -1)  # of each column; column n is where a path begins
    for row in range(n):
        before = _path(costs, u, v, row_of, row)
        column = int(before[-1])
        row_of[n] = row
        while column != n:
            previous = int(before[column])
            row_of[column] = row_of[previous]
            column = previous
    columns = np.empty(n, np.int64)
    columns[row_of[:n]] = np.arange(n)
    return columns


def _path(costs: np.ndarray, u: np.ndarray, v: np.ndarray, row_of: np.ndarray, row: int) -> np.ndarray:
    """The column before each one on the shortest path from a free row; the last element is the free column it ends at.

    Potentials follow.
    """
    n = len(costs)
    distance, before, seen = np.full(n, np.inf), np.full(n + 1, n), np.zeros(n + 1, bool)
    row_of[n], column = row, n
    while row_of[column] >= 0:
        seen[column] = True
        reduced = costs[row_of[column]] - u[row_of[column]] - v[:n]
        closer = ~seen[:n] & (reduced < distance)
        distance[closer], before[:n][closer] = reduced[closer], column
        column = int(np.where(seen[:n], np.inf, distance).argmin())
        step = distance[column]
        u[row_of[seen]] += step
        v[seen] -= step
        distance[~seen[:n]] -= step
    return np.append(before[:n], column)
