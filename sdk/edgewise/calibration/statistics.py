"""sdk, calibration: statistics of what enters each linear, and the file that holds them.

A file is safetensors. `{input}.tokens`, `.second_moment`, `.max_abs`, `.mean_abs` and, where it was asked for, `.gram`
describe one input; the metadata lists the linears that share it, and holds a hash of the file. `experts.{layer}.` and
a part describe a mixture of experts; what enters the linears of an expert are the tokens that are given to it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import numpy as np

from edgewise import strictjson
from edgewise.calibration.routing import ExpertStatistics, read_experts
from edgewise.errors import CheckpointError, OptionError
from edgewise.safetensors import read_tensors
from edgewise.tensors import Streamed

VERSION = "1"
CHUNK = 16 << 20
DIGEST = re.compile(rb"(?<=\"blake3\":\")[0-9a-f]{64}")
NO_DIGEST = b"0" * 64


@dataclass(frozen=True)
class InputStatistics:
    """What entered some linears, over all tokens. K is their number of input features.

    Of an expert that no token was given to, `tokens` is 0, and so is everything else.

    second_moment: mean of x², float32 `[K]`: the diagonal of `gram`.
    max_abs, mean_abs: largest and mean |x|, float32 `[K]`.
    """

    tokens: int
    second_moment: np.ndarray
    max_abs: np.ndarray
    mean_abs: np.ndarray
    stored_gram: Streamed | None = None

    @property
    def gram(self) -> np.ndarray | None:
        """Mean of x xᵀ, float32 `[K, K]`, read from the file each time; None where it was not asked for."""
        return None if self.stored_gram is None else self.stored_gram.read(0, self.stored_gram.dims[0])


class Statistics(Mapping[str, InputStatistics]):
    """Statistics by the name of a linear's weight; linears that share an input share the object.

    experts: by layer, of those that have a mixture of experts.
    """

    def __init__(
        self, inputs: Mapping[str, InputStatistics], experts: Mapping[int, ExpertStatistics] | None = None
    ) -> None:
        self._inputs = inputs
        self.experts = experts or {}

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Read a file, which is checked whole. Raises OptionError for one that is damaged or of another version."""
        try:
            metadata = _metadata(path)
            if (version := metadata.get("edgewise.statistics")) != VERSION:
                raise ValueError(f"version {version} of the format; this edgewise reads version {VERSION}")
            if digest_of(path) != metadata.get("blake3"):
                raise ValueError("its content is not what was written")
            tensors = read_tensors(path)
            shared = strictjson.loads_object(metadata["inputs"].encode())
        except (OSError, ValueError, KeyError, CheckpointError) as error:
            raise OptionError(f"{path} cannot be used: {error}; without it, it is computed again") from error
        inputs = {name: _read(tensors, name) for name in shared}
        return cls(
            {linear: inputs[name] for name, linears in shared.items() for linear in linears}, read_experts(tensors)
        )

    def __getitem__(self, name: str) -> InputStatistics:
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)


def _read(tensors: Mapping[str, Streamed], name: str) -> InputStatistics:
    def vector(part: str) -> np.ndarray:
        tensor = tensors[f"{name}.{part}"]
        return tensor.read(0, tensor.dims[0])

    return InputStatistics(
        int(vector("tokens")[0]),
        vector("second_moment"),
        vector("max_abs"),
        vector("mean_abs"),
        tensors.get(f"{name}.gram"),
    )


def _metadata(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = strictjson.loads_object(file.read(min(length, path.stat().st_size)))
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict):
        raise ValueError("it has no metadata")
    return metadata


def digest_of(path: Path) -> str:
    """BLAKE3 of a file in which the digest itself is zeros."""
    digest = blake3.blake3(max_threads=blake3.blake3.AUTO)
    with path.open("rb") as file:
        prefix = file.read(8)
        header = file.read(int.from_bytes(prefix, "little"))
        digest.update(prefix + DIGEST.sub(NO_DIGEST, header, count=1))
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
