"""tests: a calibration text: the sequences that it gives, and the build that is given one."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.calibration import plan as planning
from edgewise.calibration.calibration import Calibration
from edgewise.calibration.plan import CalibrationPlan
from edgewise.calibration.texts import PASSAGE, CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.cli.main import execute
from edgewise.errors import EdgewiseError, OptionError, RecipeError
from edgewise.passes import BuildContext, Pass, calibration_of, context_of
from edgewise.pipeline import build
from edgewise.plan import plan_build
from edgewise.recipe import Recipe, RecipeStep
from edgewise.steps import apply
from edgewise.text.tokenizer import Tokenizer
from edgewise_exporters.decoder import Decoder

pytestmark = pytest.mark.usefixtures("cache")


def test_sequences_are_windows_of_the_text(pycoder: Path) -> None:
    tokenizer, path = Tokenizer.load(pycoder), pycoder / "heldout.txt"
    windows = CalibrationText(path, tokens=4096, length=128).sequences(tokenizer)
    text = path.read_text("utf-8")
    assert windows.shape == (32, 128)
    assert windows.dtype == np.int64
    assert sum(tokenizer.decode(window.tolist()) in text for window in windows) >= 29  # the others span two passages
    assert len({window.tobytes() for window in windows}) == 32


def test_a_seed_chooses_what_is_taken(pycoder: Path) -> None:
    tokenizer = Tokenizer.load(pycoder)
    first, again, other = (
        CalibrationText(pycoder / "heldout.txt", tokens=1024, length=128, seed=seed).sequences(tokenizer)
        for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_each_sequence_begins_as_a_prompt_does(pycoder: Path, tmp_path: Path) -> None:
    shutil.copytree(pycoder, tmp_path / "with_bos")
    path = tmp_path / "with_bos/tokenizer.json"
    parts = [{"SpecialToken": {"id": "<|user|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<|user|>": {"id": "<|user|>", "ids": [1], "tokens": ["<|user|>"]}}
    template = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": special}
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"post_processor": template}), "utf-8")
    text = CalibrationText(pycoder / "heldout.txt", tokens=256, length=64)
    plain, begun = (text.sequences(Tokenizer.load(folder)) for folder in (pycoder, tmp_path / "with_bos"))
    assert begun.shape == (4, 64)
    assert (begun[:, 0] == 1).all()
    assert (begun[:, 1:].reshape(-1) == plain.reshape(-1)[: 4 * 63]).all()


def test_a_folder_and_json_lines_hold_the_same_text_as_a_file(pycoder: Path, tmp_path: Path) -> None:
    paragraphs = (pycoder / "heldout.txt").read_text("utf-8")[:PASSAGE].split("\n\n")
    lines = [json.dumps({"text": paragraph, "source": "ours"}) for paragraph in paragraphs]
    (tmp_path / "folder/deeper").mkdir(parents=True)
    (tmp_path / "folder/.hidden").write_bytes(b"\xff")
    for number, paragraph in enumerate(paragraphs):
        (tmp_path / f"folder/deeper/{number:04}.txt").write_text(paragraph, "utf-8")
    (tmp_path / "lines.jsonl").write_text("\n".join([*lines, "", ""]), "utf-8")
    tokenizer = Tokenizer.load(pycoder)
    folder, listed = (
        CalibrationText(tmp_path / name, tokens=512, length=64).sequences(tokenizer)
        for name in ("folder", "lines.jsonl")
    )
    assert (folder == listed).all()


def test_a_text_that_is_shorter_than_asked_is_used_up(
    pycoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "short.txt").write_text("x = 1\n" * 100)
    tokenizer = Tokenizer.load(pycoder)
    tokens = len(tokenizer.encode("x = 1\n" * 100))
    windows = CalibrationText(tmp_path / "short.txt", tokens=32_768, length=32).sequences(tokenizer)
    assert len(windows) == tokens // 32
    assert f"{len(windows)} sequences, of 1024 asked for" in caplog.text


@dataclass(frozen=True)
class Unfit:
    """A text that is refused: the name of its file, its content (None: there is no such file), and what is said."""

    name: str
    content: bytes | None
    says: str


@pytest.mark.parametrize(
    "text",
    [
        Unfit("none.txt", None, "does not exist; expected a file, or a folder of files"),
        Unfit("empty.txt", b"", "has 0 tokens, and a sequence takes 512: give more text, or ask for shorter sequences"),
        Unfit("tiny.txt", b"x = 1", "tokens, and a sequence takes 512: give more text, or ask for shorter sequences"),
        Unfit("latin.txt", b"caf\xe9", r"latin.txt is not UTF-8 text \(byte 3\)"),
        Unfit("a.jsonl", b'{"text": "a"}\n{"text": 3}', 'line 2: expected an object with a "text"'),
        Unfit("a.jsonl", b'\n{"text"', "line 2: not JSON"),
        Unfit("a.jsonl", b"[]", "line 1: expected a JSON object, got list"),
        Unfit("a.jsonl", b'{"text": "\\ud800"}', "not valid Unicode"),
    ],
    ids=lambda text: text.says[:30],
)
def test_an_unfit_text_is_one_line(text: Unfit, pycoder: Path, tmp_path: Path) -> None:
    if text.content is not None:
        (tmp_path / text.name).write_bytes(text.content)
    with pytest.raises(EdgewiseError, match=text.says) as error:
        CalibrationText(tmp_path / text.name).sequences(Tokenizer.load(pycoder))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("options", "says"), [({"length": 1}, "at least 2"), ({"tokens": 9}, "one sequence of 512")])
def test_an_unfit_budget_is_refused(options: dict[str, int], says: str, pycoder: Path) -> None:
    with pytest.raises(OptionError, match=says):
        CalibrationText(pycoder / "heldout.txt", **options)


@dataclass(frozen=True)
class Prober(Pass):
    """Reads what a build offers."""

    name: ClassVar[str] = "prober"

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        calibration = calibration_of(model, needed_by="method 'prober'")
        if not context_of(model).dry:
            assert calibration.statistics(model)["model.embed_tokens.weight"].tokens == 1024
            with calibration.walk(model) as walk:
                assert walk.sequences.shape == (8, 128)
        return ir.passes.PassResult(model, modified=False)


def text_of(pycoder: Path) -> CalibrationText:
    return CalibrationText(pycoder / "heldout.txt", tokens=1024, length=128)


def test_a_pass_finds_the_calibration_of_its_build(pycoder: Path) -> None:
    model = Decoder().export(Checkpoint.open(pycoder))
    calibration = Calibration(text_of(pycoder), Tokenizer.load(pycoder))
    apply(model, [Prober()], BuildContext(calibration=calibration, dry=True), error=RecipeError)
    assert not calibration.used
    apply(model, [Prober()], BuildContext(calibration=calibration), error=RecipeError)
    assert calibration.used


def test_a_pass_that_needs_a_text_says_so(pycoder: Path) -> None:
    model = Decoder().export(Checkpoint.open(pycoder))
    with pytest.raises(RecipeError, match="method 'prober' needs a calibration text: --calibration-text FILE"):
        apply(model, [Prober()], BuildContext(), error=RecipeError)


def test_the_plan_says_what_a_calibration_takes(pycoder: Path, cache: Path) -> None:
    plan = plan_build(pycoder, calibration=text_of(pycoder))
    assert plan.calibration is not None
    assert (plan.calibration.sequences, plan.calibration.length) == (8, 128)
    assert plan.build_memory == plan.calibration.memory
    assert plan.calibration.seconds > 0
    assert not cache.exists()


def enough(pycoder: Path) -> CalibrationText:
    """For GPTQ, of the widest matrix."""
    return CalibrationText(pycoder / "heldout.txt", tokens=8192, length=128)


def recipe(*steps: tuple[str, dict[str, Any]]) -> Recipe:
    return Recipe(tuple(RecipeStep(name, options) for name, options in steps))


def test_the_plan_knows_what_each_step_takes(pycoder: Path) -> None:
    def planned(*steps: tuple[str, dict[str, Any]]) -> CalibrationPlan:
        found = plan_build(pycoder, calibration=enough(pycoder), recipe=recipe(*steps)).calibration
        assert found is not None
        return found

    grid, gptq = (planned(("quantize", {"method": method})) for method in ("grid", "gptq"))
    learned, longer = (planned(("quantize", {"method": "autoround", "steps": steps})) for steps in (10, 100))
    mixed, scaled = planned(("mix", {"max_bytes": 4_000_000})), planned(("awq", {}), ("quantize", {}))
    assert grid.memory < gptq.memory < learned.memory == longer.memory  # torch, and derivatives of every weight
    assert len(grid.costs) == len(gptq.costs) == 2  # its own, and that of measuring int8 activations
    assert [len(plan.costs) for plan in (learned, mixed, scaled)] == [3, 4, 2]

    def flops(plan: CalibrationPlan) -> float:
        return sum(cost.flops for cost in plan.costs)

    assert flops(grid) < flops(gptq) < flops(learned)
    assert flops(longer) - flops(gptq) == pytest.approx(10 * (flops(learned) - flops(gptq)))
    assert flops(mixed) > flops(gptq)


def test_a_build_whose_steps_do_not_fit_is_refused_before_it_measures(
    pycoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gptq = recipe(("quantize", {"method": "gptq"}))
    plan = plan_build(pycoder, calibration=enough(pycoder), recipe=gptq).calibration
    assert plan is not None
    monkeypatch.setattr(planning, "available_memory", lambda: plan.memory - 1)
    monkeypatch.setattr("edgewise.calibration.calibration.Walk", None)  # nothing is run
    with pytest.raises(OptionError, match=r"calibration takes about 0\.\d+ GB of memory, .* --calibration-length"):
        build(pycoder, output=tmp_path / "out", calibration=enough(pycoder), recipe=gptq)
    monkeypatch.setattr(planning, "available_memory", lambda: None)
    monkeypatch.setattr(planning, "free_disk", lambda folder: plan.disk - 1)
    with pytest.raises(OptionError, match=r"fewer --calibration-tokens take less, or set EDGEWISE_CACHE"):
        build(pycoder, output=tmp_path / "out", calibration=enough(pycoder), recipe=gptq)


def test_a_text_that_nothing_uses_is_refused(pycoder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a calibration text would change nothing"):
        build(pycoder, output=tmp_path / "out", calibration=text_of(pycoder), recipe=Recipe())
    assert not (tmp_path / "out").exists()


def test_the_command_line_prints_what_a_calibration_takes(pycoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["build", str(pycoder), "--dry-run"]
    text = ["--calibration-text", str(pycoder / "heldout.txt"), "--calibration-length", "64", "--seed", "2"]
    assert execute([*command, *text, "--calibration-tokens", "640"]) == 0
    assert "to measure 10 sequences of 64 tokens: up to " in capsys.readouterr().out
    assert execute([*command, *text, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)["calibration"]
    assert plan.keys() == {"sequences", "length", "memory", "disk", "seconds"}
    assert (plan["sequences"], plan["length"]) == (512, 64)


def test_options_of_a_text_need_one(pycoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["build", str(pycoder), "--dry-run", "--calibration-tokens", "640"]) == 2
    assert "need a --calibration-text" in capsys.readouterr().err
