"""tests: what several rooms share: the demo checkpoint, and its bundle, built once."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

from edgewise.bundle.read import Bundle
from edgewise.pipeline import build

settings.register_profile("ci", derandomize=True)  # the same examples each time: a landing is no lottery
if "CI" in os.environ:
    settings.load_profile("ci")

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="session")
def pycoder() -> Path:
    """The demo checkpoint."""
    return EXAMPLES / "pycoder"


@pytest.fixture(scope="session")
def pycoder_bundle(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo checkpoint as it is built by default; not to be written to."""
    return build(pycoder, output=tmp_path_factory.mktemp("bundle") / "pycoder.edge")


@pytest.fixture(scope="session")
def two_graphs(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo checkpoint with a second graph for long prompts; not to be written to."""
    return build(pycoder, output=tmp_path_factory.mktemp("two") / "pycoder.edge", prefill="int8")


@pytest.fixture
def folder(pycoder: Path, pycoder_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a checkpoint and its bundle that a test may spoil."""
    shutil.copytree(pycoder, tmp_path / "checkpoint")
    shutil.copytree(pycoder_bundle.path, tmp_path / "model.edge")
    monkeypatch.chdir(tmp_path)
    return tmp_path
