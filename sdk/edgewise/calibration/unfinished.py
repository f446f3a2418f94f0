"""sdk, calibration: a statistics file under construction: a layer at a time, and how far it has come.

Every size is known before the first number, so each layer is written in its place. A journal beside the file holds
hashes of the layers that are in it, and of the hidden states to go on from: what does not match is begun anew.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import blake3
import numpy as np

from edgewise import strictjson
from edgewise.calibration.statistics import NO_DIGEST, VERSION, digest_of

FILE, JOURNAL = "statistics.safetensors", "journal.json"
WIDTHS = {"F32": 4, "I64": 8}

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name


@dataclass(frozen=True)
class Journal:
    """The hash of each layer that is written, and that of the hidden states which enter the next one."""

    layers: tuple[str, ...] = ()
    hidden: str = ""


class Unfinished:
    """A file in `folder` of these tensors, which come layer by layer; `shared` are the linears of each input."""

    def __init__(self, folder: Path, layers: Sequence[Tensors], shared: Mapping[str, Sequence[str]]) -> None:
        self.folder, self.path, self.layers, self.shared = folder, folder / FILE, layers, shared
        self.data = len(self._header(NO_DIGEST))
        ends = np.cumsum([sum(map(_bytes, tensors.values())) for tensors in layers], dtype=np.int64).tolist()
        self.places = list(zip([0, *ends], ends, strict=False))
        self.journal = self._read_journal()
        if not self.journal.layers:
            self.path.write_bytes(self._header(NO_DIGEST))
        os.truncate(self.path, self.data + ends[-1])

    @property
    def done(self) -> int:
        """Layers that are written."""
        return len(self.journal.layers)

    def write(self, arrays: Mapping[str, np.ndarray], *, hidden: str | None) -> None:
        """The next layer; `hidden` is the hash of what leaves it, None after the last one."""
        tensors, digest = self.layers[self.done], blake3.blake3()
        with self.path.open("r+b") as file:
            file.seek(self.data + self.places[self.done][0])
            for name, (_, shape) in tensors.items():
                assert arrays[name].shape == shape
                content = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data
                digest.update(content)
                file.write(content)
        self.journal = Journal((*self.journal.layers, digest.hexdigest()), hidden or "")
        if hidden is None:
            return
        partial = self.folder / f"{JOURNAL}.partial"
        partial.write_text(json.dumps({"layers": self.journal.layers, "hidden": self.journal.hidden}))
        partial.rename(self.folder / JOURNAL)

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

    def _read_journal(self) -> Journal:
        """What an earlier process did, if all of it is still as it was."""
        try:
            table = strictjson.loads_object((self.folder / JOURNAL).read_bytes())
            journal = Journal(tuple(table["layers"]), table["hidden"])
            with self.path.open("rb") as file:
                for (start, stop), digest in zip(self.places, journal.layers, strict=False):
                    file.seek(self.data + start)
                    if blake3.blake3(file.read(stop - start)).hexdigest() != digest:
                        return Journal()
            hidden = blake3.blake3().update_mmap(self.folder / f"hidden.{len(journal.layers)}")
        except (OSError, ValueError, KeyError, TypeError):
            return Journal()
        return journal if hidden.hexdigest() == journal.hidden else Journal()


def _bytes(tensor: tuple[str, tuple[int, ...]]) -> int:
    dtype, shape = tensor
    return WIDTHS[dtype] * math.prod(shape)
