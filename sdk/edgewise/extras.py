"""sdk: optional dependencies: which extra brings a module that is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edgewise.errors import MissingDevice, MissingExtra

if TYPE_CHECKING:
    from edgewise.bundle.manifest import Provider

EXTRAS = {
    "onnxruntime": "cpu",
    "huggingface_hub": "build",
    "jsonschema": "eval",
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


def require_library(provider: "Provider") -> None:
    """Raises MissingExtra or MissingDevice where the package of a provider's library is not installed.

    What a profile or a bundle names is never looked for in the folder that one is in.
    """
    if not provider.library.isidentifier() or provider.library not in packages_distributions():
        if provider.extra:
            raise MissingExtra(provider.library, provider.extra)
        raise MissingDevice(f"{provider.name} is in the package {provider.library}, which is not installed")


def require(package: str) -> None:
    """Raises MissingExtra where an optional dependency is not installed, before any work is done for nothing."""
    if find_spec(package) is None:
        raise MissingExtra(package, EXTRAS[package])
