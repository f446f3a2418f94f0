"""sdk, lint: the graphs of a file or of a bundle."""

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from edgewise.bundle.read import Bundle
from edgewise.errors import GraphError


def read_graphs(path: Path) -> tuple[Mapping[str, ir.Model], str | None]:
    """By file, the graphs of an ONNX file or of a bundle, and the target that a bundle was built for.

    Weights stay on disk. Raises GraphError, BundleError.
    """
    if path.is_file():
        return {path.name: _read(path)}, None
    manifest = Bundle.open(path, verify=False).manifest
    return {name: _read(path / name) for name in manifest.graphs.values()}, manifest.target


def _read(path: Path) -> ir.Model:
    try:
        return ir.load(path)
    except Exception as error:  # protobuf and onnx_ir raise what they like on a file that is no graph
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError(f"{path} is not an ONNX graph: {problem}") from error
