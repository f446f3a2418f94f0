"""tests: canonical graphs of tiny checkpoints, run by the walk, with a calibration on given tokens."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

import tiny
from edgewise.calibration.cache import scratch
from edgewise.calibration.calibration import Calibration
from edgewise.calibration.texts import CalibrationText
from edgewise.calibration.walk import Walk
from edgewise.exporters import export_graph
from edgewise.passes import BuildContext
from edgewise.prepare import open_checkpoint
from edgewise.text.tokenizer import Tokenizer

PYCODER = Path(__file__).parent.parent / "examples" / "pycoder"


def tokens(count: int, length: int, *, vocabulary: int = tiny.VOCABULARY, seed: int = 1) -> np.ndarray:
    """Random sequences, int64 `[count, length]`."""
    return np.random.default_rng(seed).integers(0, vocabulary, (count, length), np.int64)


def graph(checkpoint: Path) -> ir.Model:
    return export_graph(open_checkpoint(checkpoint))


def calibrated(model: ir.Model, sequences: np.ndarray) -> ir.Model:
    """The model as a build hands it to a pass, calibrated on these sequences."""
    calibration = Calibration(CalibrationText(PYCODER / "heldout.txt"), Tokenizer.load(PYCODER))
    calibration.sequences = sequences
    model.meta["edgewise"] = BuildContext(calibration=calibration)
    return model


def logits(model: ir.Model, sequences: np.ndarray) -> np.ndarray:
    """float32 `[tokens, vocabulary]`."""
    with scratch() as folder:
        walk = Walk(model, sequences, folder=folder)
        for layer in walk.layers:
            walk.advance(layer)
        return np.concatenate(list(walk.logits()))
