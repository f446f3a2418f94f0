"""sdk: optional dependencies: which extra brings a module that is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from edgewise.errors import MissingExtra

EXTRAS = {
    "onnxruntime": "cpu",
    "huggingface_hub": "build",
    "llguidance": "grammar",
    "ml_dtypes": "build",
    "onnx": "build",
    "onnx_ir": "build",
    "rich": "build",
    "safetensors": "distill",
    "torch": "distill",
}


@contextmanager
def extras() -> Iterator[None]:
    """Turns the import of a missing optional dependency into MissingExtra, which names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtra(package, EXTRAS[package]) from error


def require(package: str) -> None:
    """Raises MissingExtra where an optional dependency is not installed, before any work is done for nothing."""
    if find_spec(package) is None:
        raise MissingExtra(package, EXTRAS[package])
