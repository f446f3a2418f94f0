"""tests: `edgewise lint`: lines, data, exit codes."""

import json
from pathlib import Path

import onnx_ir as ir
import pytest

from edgewise.cli.main import execute
from edgewise.pipeline import build
from one_node import product

PYCODER = Path(__file__).parents[1] / "examples" / "pycoder"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lint") / "model.onnx"
    ir.save(product(bits=3), path)
    return path


def test_the_command_prints_a_line_for_each_finding_and_exits_with_1(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["lint", str(saved), "--target", "cpu-x64"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "model.onnx: 'gate': ONNX Runtime has no product with 3-bit weights; choose bits 2, 4 or 8 [slow]" in lines
    assert all(line.startswith("model.onnx: ") for line in lines)


def test_json_has_the_findings_as_data(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["lint", str(saved), "--target", "cpu-x64", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    slow = next(finding for finding in said["findings"] if finding["rule"] == "slow")
    assert (said["target"], slow["file"], slow["places"]) == ("cpu-x64", "model.onnx", ["'gate'"])
    assert slow["fix"] == "choose bits 2, 4 or 8"


def test_a_bundle_is_held_against_its_own_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = build(PYCODER, output=tmp_path / "a.edge", load_check=False)
    assert execute(["lint", str(bundle.path)]) == 0
    assert capsys.readouterr().out == f"{bundle.path} is fit for target 'cpu-x64'\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["GRAPH"], 2, "an ONNX file does not say what it is for: give --target"),
        (["GRAPH", "--target", "abacus"], 1, "no target is named 'abacus'"),
        (["nowhere.onnx", "--target", "cpu-x64"], 1, "there is no bundle at nowhere.onnx"),
        ([__file__, "--target", "cpu-x64"], 1, "is not an ONNX graph"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], status: int, message: str, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(["lint", *(str(saved) if argument == "GRAPH" else argument for argument in arguments)]) == status
    assert message in capsys.readouterr().err
