"""tests: what several rooms share: the demo checkpoint, and its bundle, built once."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import optimum_bridge
from edgewise.bundle.read import Bundle
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.runtime.runner import Runner
from killed import Ask

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
def float_runner(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """The demo in float32: nothing between it and transformers but the lowering.

    Its scores do not depend on how many rows or tokens are computed at once, but for 1e-5.
    """
    path = tmp_path_factory.mktemp("float") / "float.edge"
    build(pycoder, output=path, recipe=Recipe(), load_check=False)
    with Runner.open(path, threads=1) as opened:
        yield opened


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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the checkpoints of a test file are made."""
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="session")
def optimum_python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python that the exporter `optimum` runs: the one that is named, or one made for all who test."""
    if named := os.environ.get(optimum_bridge.VARIABLE):
        yield Path(named)
        return
    python = optimum_bridge.environment(shared(tmp_path_factory))
    os.environ[optimum_bridge.VARIABLE] = str(python)
    yield python
    del os.environ[optimum_bridge.VARIABLE]


@pytest.fixture(scope="session")
def optimum_models(optimum_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints, what torch computes with them and what optimum exports; see optimum_models.py."""
    return optimum_bridge.models(optimum_python, shared(tmp_path_factory))


def shared(factory: pytest.TempPathFactory) -> Path:
    """A folder for all processes of this run of the tests."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where statistics are kept, for one test alone."""
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "calibration"


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Has a task done by a process that can be killed; see killed.py."""
    script = Path(__file__).with_name("killed.py")
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout

        def answer(task: str, **arguments: Any) -> dict[str, Any]:
            assert process.stdin
            assert process.stdout
            print(json.dumps({"task": task, **arguments}), file=process.stdin, flush=True)
            reply: dict[str, Any] = json.loads(process.stdout.readline())
            return reply

        yield answer
        process.stdin.close()
