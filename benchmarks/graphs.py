"""Canonical graphs that passes have changed: how far their scores are from the checkpoint's, on held-out text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
from shapes import DEMO

from edgewise.calibration.calibration import Calibration
from edgewise.calibration.texts import CalibrationText
from edgewise.exporters import export_graph
from edgewise.passes import BuildContext, Pass
from edgewise.prepare import open_checkpoint
from edgewise.quality.compare import measured
from edgewise.quality.divergence import Divergences, divergences
from edgewise.quality.report import Distance, distance
from edgewise.quality.scorers import Canonical
from edgewise.text.tokenizer import Tokenizer

TOKENS, HELD_OUT, LENGTH = 32_768, 16_384, 512
ROWS = 256


@dataclass(frozen=True)
class Graphs:
    """A checkpoint, and what passes make of it; the scores of the checkpoint are kept in a folder."""

    checkpoint: Path
    work: Path

    @property
    def sequences(self) -> np.ndarray:
        return CalibrationText(DEMO / "heldout.txt", tokens=HELD_OUT, length=LENGTH).sequences(Tokenizer.load(DEMO))

    def graph(self, steps: Sequence[Pass] = ()) -> ir.Model:
        """The canonical graph after some passes, which see calibration.txt."""
        model = export_graph(open_checkpoint(self.checkpoint))
        text = CalibrationText(DEMO / "calibration.txt", tokens=TOKENS, length=LENGTH)
        model.meta["edgewise"] = BuildContext(calibration=Calibration(text, Tokenizer.load(DEMO)))
        for step in steps:
            step(model)
        return model

    def distance(self, model: ir.Model) -> Distance:
        streams = [self._rows(), Canonical(model).logits(self.sequences)]
        return distance(Divergences.join(list(measured(streams, self.sequences, divergences))))

    @cached_property
    def _reference(self) -> Path:
        path = self.work / f"{self.checkpoint.name}.scores.npy"
        if not path.exists():
            scores = np.concatenate([rows.copy() for rows in Canonical(self.graph()).logits(self.sequences)])
            np.save(path, scores)
        return path

    def _rows(self) -> Iterator[np.ndarray]:
        scores = np.load(self._reference, mmap_mode="r")
        for start in range(0, len(scores), ROWS):
            yield np.asarray(scores[start : start + ROWS])
