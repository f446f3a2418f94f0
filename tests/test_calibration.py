"""tests: statistics beside those of the whole graph, their cache, other processes, and what is refused."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.testing import assert_allclose

from edgewise.calibration import plan as planning
from edgewise.calibration.cache import scratch
from edgewise.calibration.collect import collect
from edgewise.calibration.gram import add_gram, mirror
from edgewise.calibration.plan import plan_statistics
from edgewise.calibration.stages import linears_by_input
from edgewise.calibration.statistics import Statistics
from edgewise.errors import GraphError, OptionError
from edgewise.graph import get_facts, linears
from edgewise.tensors import map_rows
from walks import FAMILIES, TOKENS, checkpoint, export, whole

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_are_those_of_the_whole_graph(family: str, home: Path, tmp_path: Path) -> None:
    model = export(family, home)
    inputs = {name: group for shared in linears_by_input(model).values() for name, group in shared.items()}
    values = whole(model, TOKENS, list(inputs), tmp_path)
    statistics = collect(model, TOKENS, gram=True)
    assert len(statistics) == sum(linear.node.op_type == "MatMul" for linear in linears(model))
    for name, group in inputs.items():
        x = values[name].reshape(TOKENS.size, -1).astype(np.float64)
        assert len({id(statistics[linear.name]) for linear in group}) == 1
        found = statistics[group[0].name]
        assert found.tokens == TOKENS.size
        assert found.gram is not None
        scale = np.square(x).mean()
        assert_allclose(found.gram, x.T @ x / len(x), rtol=1e-5, atol=1e-5 * scale)
        assert_allclose(found.second_moment, np.square(x).mean(axis=0), rtol=1e-5)
        assert_allclose(found.mean_abs, np.abs(x).mean(axis=0), rtol=1e-5)
        assert_allclose(found.max_abs, np.abs(x).max(axis=0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3), (300, 700), (40, 1100)])
def test_second_moments_in_panels_are_the_product(shape: tuple[int, int]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    total = np.ones((shape[1], shape[1]), np.float32)
    add_gram(total, x)
    mirror(total)
    assert_allclose(total, 1 + x.T.astype(np.float64) @ x, atol=1e-4)
    assert (total == total.T).all()


def test_a_layer_that_computes_no_numbers_is_named(home: Path, cache: Path) -> None:
    model = export("llama", home)
    linear = next(linear for linear in linears(model) if linear.role == "mlp.up" and linear.layer == 2)
    linear.replace(map_rows(linear.matrix, lambda rows: rows * np.float32(3e38)))
    with pytest.raises(GraphError, match=r"layer 2: the input of 'model\.layers\.2\.mlp\.down_proj\.weight' holds NaN"):
        collect(model, TOKENS)
    assert list(cache.iterdir()) == []


def test_what_does_not_fit_is_refused_with_what_would(home: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = export("llama", home)
    tokens = np.full((64, 256), 5)
    plan = plan_statistics(model, tokens.shape)
    shorter = plan_statistics(model, (128, 128))
    for free, says in ((plan.memory - 1, f"sequences of 128 tokens would fit, with {shorter.memory / 1e9:.2f} GB"),
                       (1000, "its largest layer alone takes 0.00 GB")):  # fmt: skip
        monkeypatch.setattr(planning, "available_memory", lambda free=free: free)
        with pytest.raises(OptionError, match=says):
            collect(model, tokens)
    monkeypatch.undo()
    monkeypatch.setenv("EDGEWISE_CACHE", str(cache.parent))
    monkeypatch.setattr(planning, "free_disk", lambda folder: plan.disk // 2)
    with pytest.raises(OptionError, match=r"0\.01 GB in .*; 8,\d\d\d tokens would fit, or set EDGEWISE_CACHE"):
        collect(model, tokens)


# The cache


def files(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.iterdir() if path.is_file()}


def test_statistics_are_computed_once(home: Path, cache: Path) -> None:
    model, calls = export("llama", home), []
    for _ in range(2):
        collect(model, TOKENS, progress=lambda *report: calls.append(report))
    assert len(calls) == get_facts(model).layers
    assert len(files(cache)) == 1
    assert all(path.suffix == ".safetensors" for path in cache.iterdir())


def test_the_same_inputs_give_the_same_bytes(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for name in ("a", "b"):
        monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / name))
        collect(export("qwen3", home), TOKENS, gram=True)
        written.append(files(tmp_path / name / "calibration"))
    assert written[0] == written[1]


def test_a_weight_a_token_or_an_option_more_is_another_entry(home: Path, cache: Path) -> None:
    model = export("llama", home)
    collect(model, TOKENS)
    collect(model, TOKENS, gram=True)
    collect(model, np.where(TOKENS == 9, 10, TOKENS))
    linear = next(linear for linear in linears(model) if linear.role == "mlp.up")
    linear.replace(map_rows(linear.matrix, lambda rows: rows * np.float32(1.0001)))
    collect(model, TOKENS)
    assert len(files(cache)) == 4


def spoil(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert content.count(old) >= 1
    path.write_bytes(content.replace(old, new, 1))


@pytest.mark.parametrize("damage", ["truncated", "header", "data", "version"])
def test_a_damaged_entry_is_one_line_and_is_computed_again(
    damage: str, home: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = export("llama", home)
    collect(model, TOKENS)
    ((name, content),) = files(cache).items()
    path = cache / name
    if damage == "truncated":
        path.write_bytes(content[:-10])
    elif damage == "header":
        spoil(path, b"mlp.up_proj", b"mlp.xp_proj")
    elif damage == "data":
        path.write_bytes(content[:-2] + b"\0\0")
    else:
        spoil(path, b'"edgewise.statistics":"1"', b'"edgewise.statistics":"9"')
    with pytest.raises(OptionError) as error:
        Statistics.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    if damage == "version":
        assert "version 9 of the format; this edgewise reads version 1" in str(error.value)
    collect(model, TOKENS)
    assert caplog.messages == [str(error.value)]
    assert files(cache) == {name: content}


# Other processes


def child(checkpoint: Path, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(Path(__file__).with_name("calibrated.py")), str(checkpoint), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def outcome(process: "subprocess.Popen[str]") -> dict[str, Any]:
    output = process.communicate()[0]
    assert process.returncode == 0
    result: dict[str, Any] = json.loads(output)
    return result


@pytest.fixture(scope="module")
def killed(home: Path) -> Path:
    """The cache that a process left which was killed in the third layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEWISE_CACHE", str(home / "killed"))
        process = child(checkpoint("qwen2", home), 2)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    return home / "killed" / "calibration"


def layers_of_a_run(model: ir.Model) -> list[int]:
    """Which layers are gone through for the statistics."""
    layers: list[int] = []
    collect(model, TOKENS, gram=True, progress=lambda stage, done, total: layers.append(done // len(TOKENS) - 1))
    return layers


def test_a_killed_run_goes_on_and_ends_with_the_same_file(
    killed: Path, home: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(killed, cache)
    model = export("qwen2", home)
    assert files(cache) == {}
    assert layers_of_a_run(model) == [2, 3]
    resumed = files(cache)
    monkeypatch.setenv("EDGEWISE_CACHE", str(tmp_path / "undisturbed"))
    assert layers_of_a_run(model) == [0, 1, 2, 3]
    assert files(tmp_path / "undisturbed" / "calibration") == resumed
    assert len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("damaged", ["hidden.2", "statistics.safetensors", "journal.json"])
def test_a_killed_run_whose_files_are_damaged_starts_anew(damaged: str, killed: Path, home: Path, cache: Path) -> None:
    shutil.copytree(killed, cache)
    (work,) = cache.iterdir()
    content = (work / damaged).read_bytes()
    at = len(content) // 4  # of the statistics less than half is written
    (work / damaged).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert layers_of_a_run(export("qwen2", home)) == [0, 1, 2, 3]


def test_of_two_processes_one_computes_and_both_have_the_statistics(home: Path, cache: Path) -> None:
    results = [outcome(process) for process in [child(checkpoint("llama", home)) for _ in range(2)]]
    assert sorted(result["layers"] for result in results) == [[], [1, 2, 3, 4]]
    assert results[0]["inputs"] == results[1]["inputs"] == 29
    assert len(files(cache)) == 1


def test_memory_does_not_grow_with_the_layers(home: Path) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 2048}
    peaks = []
    for layers in (3, 9):
        folder = checkpoint("llama", home, f"-{layers}", **sizes, num_hidden_layers=layers)
        peaks.append(outcome(child(folder))["peak"])
    model = export("llama", home, "-9")
    assert peaks[1] < plan_statistics(model, TOKENS.shape, gram=True).memory
    weights_of_a_layer = 4 * (512 * 512 * 3 + 3 * 512 * 2048)
    assert peaks[1] < peaks[0] + 2 * weights_of_a_layer


def test_scratch_folders_of_killed_builds_are_swept(cache: Path) -> None:
    with scratch() as mine, scratch() as other:
        assert {mine, other} == set(cache.iterdir())
        (cache / "dead.scratch").mkdir()
        with scratch():
            assert not (cache / "dead.scratch").exists()
            assert mine.exists()
    assert list(cache.iterdir()) == []
