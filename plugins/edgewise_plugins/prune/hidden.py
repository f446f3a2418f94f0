"""plugins, prune: a narrower residual stream: fewer channels between all layers, chosen by channel or by direction.

With Q an orthogonal matrix whose columns are the principal directions of what reads the stream, and norm gains moved
into what reads them, a model that is rotated by Q (see `rotate`) computes what it did, and its last channels hold
least: they are cut. SliceGPT (arXiv 2401.15024) has a Q for each block, and a product between two of them on every
residual connection; here one Q serves all, and what runs on the device is the same graph, narrower.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from edgewise.calibration.calibration import Calibration
from edgewise.errors import GraphError
from edgewise.graph import get_facts
from edgewise.passes import Pass, calibration_of, context_of
from edgewise_plugins.prune.directions import Directions
from edgewise_plugins.prune.eliminate import check_damping
from edgewise_plugins.prune.head import insert_turn
from edgewise_plugins.prune.observed import refuse_too_few_tokens
from edgewise_plugins.prune.parts import check_multiple, check_share, rounded
from edgewise_plugins.prune.refitted import Refitted
from edgewise_plugins.prune.stream import Stream
from edgewise_plugins.rotate import turn_stream

Method = Literal["channels", "slice"]


@dataclass(frozen=True)
class PruneHidden(Pass):
    """Removes channels of the residual stream: every matrix that reads it or adds to it is narrower.

    `keep` is the share of the hidden size that stays, rounded up to a multiple of `multiple`. The method `channels`
    removes channels without which what reads the stream misses least; `slice` turns the stream first, so that the last
    channels hold least (SliceGPT), for models whose norms are RMS norms before the blocks. With `refit` the matrices
    around the stream are fitted anew, and biases are added to what adds to it. A tied lm_head stays tied, with a small
    matrix before it. Needs a calibration text. Comes before `quantize`.
    """

    name: ClassVar[str] = "prune-hidden"

    keep: float = 0.75
    multiple: int = 128
    method: Method = "channels"
    refit: bool = True
    damping: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)
        check_share(self.keep)
        check_multiple(self.multiple)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="pass 'prune-hidden'")
        width = get_facts(model).hidden_size
        count = rounded(self.keep, width, self.multiple)
        stream = Stream.of(model, needed_by="prune-hidden")
        if self.refit:
            inputs = max(linear.matrix.dims[1] for linear in (*stream.writers, *stream.readers))
            refuse_too_few_tokens(calibration, inputs, needed_by="prune-hidden")
        if count == width:
            return ir.passes.PassResult(model, modified=False)
        if context_of(model).dry:
            self._turn(model, np.eye(width, dtype=np.float32))
            Stream.of(model, needed_by="prune-hidden").cut(model, np.arange(count))
        else:
            self._prune(model, count, calibration)
        return ir.passes.PassResult(model, modified=True)

    def _turn(self, model: ir.Model, turn: np.ndarray) -> None:
        if self.method == "slice" or self.refit:
            insert_turn(model)
        if self.method == "slice":
            try:
                turn_stream(model, turn)
            except GraphError as error:
                raise GraphError(f"{error}; method 'channels' rotates nothing") from error

    def _prune(self, model: ir.Model, count: int, calibration: Calibration) -> None:
        with calibration.walk(model) as walk:
            directions = Directions.of(walk, Stream.of(model, needed_by="prune-hidden").readers)
        self._turn(model, directions.principal())
        left = np.arange(count) if self.method == "slice" else directions.channels(count, damping=self.damping)
        before, stream = model.clone(), Stream.of(model, needed_by="prune-hidden")
        stream.cut(model, left)
        refitted = Refitted.of(model, before, stream, left, damping=self.damping)
        with calibration.walk(model) as walk, calibration.walk(before) as along:
            along.progress = None
            for number in [*walk.layers, None]:
                refitted.scale(along, number)
                if self.refit:
                    refitted.fit(walk, along, number)
                if number is not None:
                    if along.position == number:
                        along.advance(number)
                    walk.advance(number)
