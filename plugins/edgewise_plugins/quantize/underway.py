"""plugins, quantize: matrices that are quantized step by step, in a folder where a killed build leaves what it did.

A step is an lm_head that is the embedding too, which comes first, a layer, or the lm_head. The journal holds the hashes
of the matrices of each step that is done, and of the hidden states that enter the next layer, in the float model and in
ours.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain, pairwise
from pathlib import Path

from edgewise.calibration.journal import JOURNAL, Journal, digest, read_journal
from edgewise.calibration.walk import Walk
from edgewise.graph import Linear
from edgewise.quantized import Format
from edgewise_plugins.quantize.spill import kept

logger = logging.getLogger(__name__)

FILE = "matrices"

Step = Sequence[Linear]


class Underway:
    """The matrices of a model that become `forms`, step by step; what is done already is put into the model.

    Others may be in the steps, too: they are left as they are.
    """

    def __init__(self, folder: Path, forms: Mapping[str, Format], steps: Sequence[Step]) -> None:
        self.folder, self.forms = folder, forms
        self.steps = [[linear for linear in step if linear.name in forms] for step in steps]
        sizes = [[forms[linear.name].stored_bytes(*linear.matrix.dims) for linear in step] for step in self.steps]
        places = list(accumulate(chain(*sizes), initial=0))
        names = [linear.name for step in self.steps for linear in step]
        self.places = dict(zip(names, places, strict=False))
        self.parts = list(pairwise(accumulate(map(sum, sizes), initial=0)))
        self.journal = read_journal(folder, FILE, self.parts)
        self._remove_what_is_not_known()
        self.spill = kept(folder / FILE, self.places)
        for linear in chain(*self.steps[: self.done]):
            self._restore(linear)
        if self.done:
            logger.info("gptq: going on after step %d of %d", self.done, len(steps))

    @property
    def done(self) -> int:
        """Steps that are done."""
        return len(self.journal.steps)

    def reach(self, walk: Walk) -> None:
        """Write down how far a walk has come, whose hidden states all stay."""
        self._write(self.journal.steps, {**self.journal.hidden, **_states(walk)}, self.journal.counts)

    def finish(self, counts: Mapping[str, int], layer: int, *walks: Walk) -> None:
        """Write down that the next step is done, where the walks are, and some numbers; it goes on at `layer`."""
        self.spill.flush()
        steps = (*self.journal.steps, digest(self.folder / FILE, *self.parts[self.done]))
        hidden = dict(chain(self.journal.hidden.items(), *(_states(walk).items() for walk in walks)))
        ahead = {name: found for name, found in hidden.items() if int(name.rpartition(".")[2]) >= layer}
        self._write(steps, ahead, {**self.journal.counts, **counts})

    def _write(self, steps: tuple[str, ...], hidden: Mapping[str, str], counts: Mapping[str, int]) -> None:
        self.journal = Journal(steps, hidden, counts)
        self.journal.write(self.folder)

    def _restore(self, linear: Linear) -> None:
        name, shape = linear.name, linear.matrix.dims
        rows, columns = shape
        linear.replace(self.spill.at(self.places[name], (rows, columns), self.forms[name], name=name))

    def _remove_what_is_not_known(self) -> None:
        known = {JOURNAL, FILE, *self.journal.hidden} if self.journal != Journal() else {}
        for path in self.folder.rglob("*"):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in known:
                path.unlink()


def _states(walk: Walk) -> dict[str, str]:
    """The hash of what enters the layer that a walk is at, by its place; none where it was found there."""
    path, found = walk.hidden.path, walk.hidden.digest
    return {f"{path.parent.name}/{path.name}": found} if found else {}
