"""exporters, foreign: random numbers for what a part of a decoder is given: runs of several sizes, with padding too."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgewise_exporters.foreign.region import Arrays
from edgewise_exporters.foreign.widths import likely_width, sizes

SPREAD = 3.0  # of random activations: so large that a softmax over what is made of them has a peak
TOLERANCE = 1e-5  # of the largest number


@dataclass(frozen=True)
class Case:
    """The sizes of a run: rows, new tokens, tokens that are held, and padding on the left of the first row."""

    rows: int
    new: int
    past: int = 0
    padding: int = 0

    @property
    def mask(self) -> np.ndarray:
        """Which positions are real, `[rows, past + new]`."""
        mask = np.ones((self.rows, self.past + self.new), np.int64)
        mask[0, : self.padding] = 0
        return mask

    @property
    def real(self) -> np.ndarray:
        """Which of the new tokens are, `[rows, new]`."""
        real: np.ndarray = self.mask[:, self.past :] == 1
        return real


CASES = (Case(1, 7), Case(1, 1, 6), Case(3, 5), Case(2, 4, 5, padding=2), Case(2, 6, 0, padding=3))


def feeds(case: Case, values: Iterable[ir.Value]) -> Arrays | None:
    """Arrays for these values: tokens, the caches among them, activations `[rows, new, width]`.

    None where the width of an activation is not known.
    """
    random = np.random.default_rng([case.rows, case.new, case.past])
    mask = case.mask
    found: dict[str, np.ndarray] = {
        "input_ids": random.integers(0, 8, (case.rows, case.new)),
        "attention_mask": mask,
        "position_ids": np.maximum(0, mask.cumsum(axis=1) - 1)[:, case.past :],
    }
    for value in values:
        if value.is_graph_input():
            if str(value.name).startswith("past_key_values.") and value.shape is not None:
                _, heads, _, dim = sizes(value)
                found[str(value.name)] = SPREAD * random.standard_normal((case.rows, heads, case.past, dim), np.float32)
            continue
        size = likely_width(value)
        if size is None:
            return None
        found[str(value.name)] = SPREAD * random.standard_normal((case.rows, case.new, size), np.float32)
    return found


def agree(found: np.ndarray, wanted: np.ndarray, real: np.ndarray | None = None) -> bool:
    """Whether two results are the same but for rounding; `real` are the tokens, `[rows, new]`, that count."""
    if found.shape != wanted.shape:
        return False
    if real is not None:
        found, wanted = found[real], wanted[real]
    return bool(np.abs(found - wanted).max(initial=0.0) <= TOLERANCE * max(1.0, float(np.abs(wanted).max(initial=0.0))))
