"""sdk, calibration: a statistics file under construction: a layer at a time, and how far it has come.

Every size is known before the first number, so each layer is written in its place. A journal beside the file says which
layers are in it: what does not match is begun anew.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import blake3
import numpy as np

from edgewise.calibration.journal import Journal, read_journal
from edgewise.calibration.statistics import NO_DIGEST, VERSION, digest_of

FILE = "statistics.safetensors"
WIDTHS = {"F32": 4, "I64": 8}

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name


class Unfinished:
    """A file in `folder` of these tensors, which come layer by layer; `shared` are the linears of each input."""

    def __init__(self, folder: Path, layers: Sequence[Tensors], shared: Mapping[str, Sequence[str]]) -> None:
        self.folder, self.path, self.layers, self.shared = folder, folder / FILE, layers, shared
        self.data = len(self._header(NO_DIGEST))
        ends = np.cumsum([sum(map(_bytes, tensors.values())) for tensors in layers], dtype=np.int64).tolist()
        self.places = [(self.data + start, self.data + end) for start, end in zip([0, *ends], ends, strict=False)]
        self.journal = read_journal(folder, FILE, self.places)
        if not self.journal.steps:
            self.path.write_bytes(self._header(NO_DIGEST))
        os.truncate(self.path, self.data + ends[-1])

    @property
    def done(self) -> int:
        """Layers that are written."""
        return len(self.journal.steps)

    def write(self, arrays: Mapping[str, np.ndarray], *, hidden: str | None) -> None:
        """The next layer; `hidden` is the hash of what leaves it, None after the last one."""
        tensors, digest = self.layers[self.done], blake3.blake3()
        with self.path.open("r+b") as file:
            file.seek(self.places[self.done][0])
            for name, (_, shape) in tensors.items():
                assert arrays[name].shape == shape
                content = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data
                digest.update(content)
                file.write(content)
        self.journal = Journal((*self.journal.steps, digest.hexdigest()), {f"hidden.{self.done + 1}": hidden or ""})
        if hidden is not None:
            self.journal.write(self.folder)

    def finish(self, path: Path) -> None:
        """Move the whole file to `path`."""
        assert self.done == len(self.layers)
        header = self._header(digest_of(self.path).encode())
        with self.path.open("r+b") as file:
            file.write(header)
            file.flush()
            os.fsync(file.fileno())
        self.path.rename(path)

    def _header(self, digest: bytes) -> bytes:
        metadata = {
            "blake3": digest.decode(),
            "edgewise.statistics": VERSION,
            "inputs": json.dumps(self.shared, sort_keys=True),
        }
        entries: dict[str, object] = {"__metadata__": metadata}
        offset = 0
        for tensors in self.layers:
            for name, (dtype, shape) in tensors.items():
                end = offset + _bytes((dtype, shape))
                entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
                offset = end
        content = json.dumps(entries, separators=(",", ":")).encode()
        content += b" " * (-len(content) % 8)
        return len(content).to_bytes(8, "little") + content


def _bytes(tensor: tuple[str, tuple[int, ...]]) -> int:
    dtype, shape = tensor
    return WIDTHS[dtype] * math.prod(shape)
