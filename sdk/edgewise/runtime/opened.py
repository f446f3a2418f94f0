"""sdk, runtime: a bundle, opened by what it is for: one that generates text, or one that gives labels."""

from pathlib import Path

from edgewise.bundle.read import Bundle
from edgewise.facts import EncoderFacts
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.runner import Runner


def open_model(path: str | Path, *, threads: int | None = None) -> Runner | Encoder:
    """Raises BundleError for what is no bundle."""
    facts = Bundle.open(path, verify=False).manifest.facts
    return (
        Encoder.open(path, threads=threads) if isinstance(facts, EncoderFacts) else Runner.open(path, threads=threads)
    )
