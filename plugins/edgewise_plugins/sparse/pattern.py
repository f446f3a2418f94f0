"""plugins, sparse: how many weights are zero, and which: those of the lowest scores, in each row or each four."""

from dataclasses import dataclass

import numpy as np

GROUP = 4  # weights that follow each other, of which a 2:4 pattern has two zeros
PAIR = "2:4"


@dataclass(frozen=True)
class Pattern:
    """A share of the weights; in fours, two of every four inputs that follow each other."""

    share: float
    fours: bool = False

    def __str__(self) -> str:
        return f"2 of every {GROUP} weights" if self.fours else f"{self.share:.4g} of the weights"

    def zeros(self, count: int) -> int:
        """Of so many weights."""
        return round(self.share * count)

    def lowest(self, scores: np.ndarray) -> np.ndarray:
        """Which weights of each row are to be zero, by their scores `[rows, columns]`: bool of the same shape."""
        if self.fours:
            fours = scores.reshape(len(scores), -1, GROUP)
            return lowest(fours, GROUP // 2).reshape(scores.shape)
        return lowest(scores, self.zeros(scores.shape[1]))


def lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """The `count` lowest of the last axis, exactly so many whatever is equal."""
    chosen = np.zeros(scores.shape, bool)
    if count:
        lowest = np.argpartition(scores, count - 1, axis=-1)[..., :count]
        np.put_along_axis(chosen, lowest, True, axis=-1)
    return chosen
