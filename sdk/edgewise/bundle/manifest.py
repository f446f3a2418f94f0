"""sdk, bundle: the manifest: what a bundle is, and a hash of every other file in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgewise.errors import BundleError, OptionError
from edgewise.facts import Facts
from edgewise.options import parse, record

FORMAT = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class File:
    """One file of the bundle: its size, and BLAKE3 of its content in hexadecimal."""

    bytes: int
    blake3: str


@dataclass(frozen=True)
class Provider:
    """An execution provider that the bundle runs on, with its options."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Cache:
    """How a graph keeps keys and values."""

    dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    shared: bool = True  # past and present are one buffer, written in place


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. Paths are relative to the bundle, with forward slashes."""

    format: int
    edgewise: str  # version that wrote it
    target: str
    facts: Facts
    graphs: Mapping[str, str]  # "decoder", or "prefill" and "decode": path of the ONNX file
    files: Mapping[str, File]
    providers: tuple[Provider, ...]
    context: int  # tokens that a session gets unless it asks for more or fewer
    cache: Cache = Cache()
    session: Mapping[str, str] = field(default_factory=dict)  # ONNX Runtime session configuration entries
    recipe: tuple[Mapping[str, Any], ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)  # of the packages that made it
    card: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str, *, where: str) -> "Manifest":
        """The manifest from JSON. Raises BundleError, also for a format newer than this edgewise knows."""
        try:
            data = json.loads(text)
            version = data.get("format") if isinstance(data, dict) else None
            if isinstance(version, int) and version > FORMAT:
                raise BundleError(
                    f"{where}: format {version} is newer than {FORMAT}, the newest that this edgewise reads"
                )
            return parse(cls, data, what=where)
        except (json.JSONDecodeError, RecursionError, OptionError) as error:
            raise BundleError(str(error) if isinstance(error, OptionError) else f"{where}: {error}") from error

    def write(self) -> str:
        """The manifest as JSON: the same manifest gives the same bytes."""
        return json.dumps(record(self), indent=2, sort_keys=True) + "\n"
