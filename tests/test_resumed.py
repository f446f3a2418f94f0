"""tests: a quantization that is killed goes on after the last layer that it finished, and ends with the same bytes."""

import logging
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

import tiny
from edgewise.calibration.cache import VARIABLE
from edgewise.folders import OpenFolder
from edgewise.graph import linears
from edgewise.quantized import BlockQuantized
from edgewise.writer import Progress
from edgewise_plugins.quantize.cost import gptq_cost
from edgewise_plugins.quantize.rules import Method
from killed import TOKENS, Ask, quantized

torch.set_num_threads(1)

LAYERS = [0, 1, 2, 3]


@dataclass(frozen=True)
class Killed:
    """A build, the hidden states that it was writing when it was killed, and which are written by who goes on."""

    method: Method
    tied: bool
    after: int
    then: list[int]


KILLED = {
    "gptq": Killed("gptq", False, 3, [2, 3]),
    "autoround": Killed("autoround", False, 3, [2, 3]),
    "tied": Killed("gptq", True, 6, [1, 2, 3]),
    "tied, in the float model": Killed("gptq", True, 3, [2, 3, *LAYERS]),
}


@pytest.fixture(scope="module")
def make(home: Path) -> Callable[[bool], Path]:
    """A checkpoint, tied or not."""
    return once(lambda tied: tiny.checkpoint("llama", home / f"tied {tied}", tie_word_embeddings=tied))


def layers_into(layers: list[int]) -> Progress:
    """Takes note of the layers that are gone through."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "calibrate":
            layers.append(done // TOKENS[0] - 1)

    return progress


def codes(model: ir.Model) -> dict[str, bytes]:
    found = {}
    for linear in linears(model):
        matrix = linear.matrix
        assert isinstance(matrix, BlockQuantized)
        assert matrix.zero_points is not None
        parts = (matrix.packed, matrix.scales, matrix.zero_points)
        found[linear.name] = b"".join(part.numpy().tobytes() for part in parts)
    return found


@pytest.mark.parametrize("case", KILLED)
def test_a_killed_quantization_goes_on_and_ends_with_the_same_bytes(
    case: str, make: Callable[[bool], Path], cache: Path, ask: Ask
) -> None:
    killed, layers = KILLED[case], list[int]()
    checkpoint = make(killed.tied)
    expected = codes(quantized(checkpoint, killed.method))
    assert not list(cache.glob("*.work"))
    found = ask(
        "quantize", checkpoint=str(checkpoint), method=killed.method, cache=str(cache.parent), after=killed.after
    )
    assert found["status"] == -signal.SIGKILL
    model = quantized(checkpoint, killed.method, layers_into(layers))
    assert layers == killed.then
    assert not list(cache.glob("*.work"))
    assert codes(model) == expected


@pytest.fixture(scope="module")
def left(make: Callable[[bool], Path], home: Path, ask: Ask) -> Path:
    """The cache that a process left which was killed in the third layer, after statistics of all four."""
    ask("quantize", checkpoint=str(make(False)), method="gptq", cache=str(home / "left"), after=4 + 3)
    return home / "left" / "calibration"


@pytest.mark.parametrize("damaged", ["journal.json", "matrices", "floats/hidden.2", "ours/hidden.2"])
def test_what_was_damaged_is_begun_anew(
    damaged: str, left: Path, make: Callable[[bool], Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(left, cache)
    (work,) = cache.glob("*.work")
    content = (work / damaged).read_bytes()
    at = len(content) // 4  # of the matrices about half is known to be whole
    (work / damaged).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    layers: list[int] = []
    model = quantized(make(False), "gptq", layers_into(layers))
    assert layers == LAYERS
    monkeypatch.setenv(VARIABLE, str(tmp_path / "undisturbed"))
    assert codes(model) == codes(quantized(make(False), "gptq"))


def test_a_second_process_waits_for_the_first(
    left: Path, make: Callable[[bool], Path], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(left, cache)
    (work,) = cache.glob("*.work")
    layers: list[int] = []
    second = threading.Thread(target=quantized, args=(make(False), "gptq", layers_into(layers)))
    with caplog.at_level(logging.INFO), OpenFolder(work) as folder:
        assert folder.lock()
        second.start()
        while second.is_alive() and not any("waiting for it" in message for message in caplog.messages):
            time.sleep(0.01)
        assert layers == []
        folder.close()
        second.join()
    assert layers == [2, 3]
    assert "gptq: going on after step 2 of 5" in caplog.messages


@pytest.mark.parametrize("tied", [False, True])
def test_the_plan_states_the_disk_that_it_takes(tied: bool, make: Callable[[bool], Path], cache: Path) -> None:
    sizes = []

    def progress(stage: str, done: int, total: int) -> None:
        files = [path for path in cache.rglob("*") if path.is_file() and path.name != "journal.json"]
        sizes.append(sum(path.stat().st_size for path in files))

    model = quantized(make(tied), "gptq", progress)
    products = [linear for linear in linears(model) if linear.role != "embedding"]
    forms = {linear.name: linear.matrix.form for linear in products if isinstance(linear.matrix, BlockQuantized)}
    stated = gptq_cost(model, forms, TOKENS).disk
    assert 0.8 * stated < max(sizes) <= stated
