"""tests: eval and the gate of a build: figures on a text, what a kill leaves, what is refused, what the card says."""

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText
from edgewise.cli.main import execute
from edgewise.errors import GateError, OptionError, RecipeError
from edgewise.pipeline import build
from edgewise.quality.evaluate import evaluate
from edgewise.quality.gate import Gate
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.runner import Runner

DEFAULT = (RecipeStep("quantize", {"bits": 4, "block_size": 128}),)

KILLED = """
import os, signal, sys
from pathlib import Path
from edgewise.calibration.texts import CalibrationText
from edgewise.quality.evaluate import evaluate

def progress(stage, done, total):
    if (stage, done) == ("eval", 2):
        os.kill(os.getpid(), signal.SIGKILL)

bundle, text, against = sys.argv[1:]
evaluate(bundle, CalibrationText(Path(text), 128, 32), against=against or None, progress=progress)
"""


pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def heldout(pycoder: Path) -> CalibrationText:
    """Four sequences of 32 tokens."""
    return CalibrationText(pycoder / "heldout.txt", 128, 32)


def test_the_figures_are_those_of_the_text(pycoder_bundle: Bundle, heldout: CalibrationText) -> None:
    found = evaluate(pycoder_bundle.path, heldout)
    nll, bits, text_bytes = [], 0.0, 0
    with Runner.open(pycoder_bundle.path) as runner:
        for row in heldout.sequences(runner.tokenizer).tolist():
            logits = runner.session(capacity=32).prefill(row, scores=32).astype(np.float64)
            for scores, target in zip(logits, row[1:], strict=False):
                nll.append(-np.log(np.exp(scores)[target] / np.exp(scores).sum()))
                bits -= np.log2(np.exp(scores)[target] / np.exp(scores).sum())
            text_bytes += len(runner.tokenizer.decode(row[1:]).encode())
    assert found.tokens == len(nll) == 4 * 31
    assert_allclose(found.perplexity, np.exp(np.mean(nll)), rtol=1e-4)
    assert_allclose(found.bits_per_byte, bits / text_bytes, rtol=1e-4)
    assert found.distance is None


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "against the checkpoint"])
def test_an_evaluation_that_was_killed_goes_on_where_it_was(
    alone: bool,
    pycoder: Path,
    pycoder_bundle: Bundle,
    heldout: CalibrationText,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    against = "" if alone else str(pycoder)
    unbroken = evaluate(pycoder_bundle.path, heldout, against=against or None)
    assert list(cache.iterdir()) == []
    command = [sys.executable, "-c", KILLED, str(pycoder_bundle.path), str(heldout.path), against]
    assert subprocess.run(command, check=False).returncode == -9
    stages = []
    with caplog.at_level(logging.INFO, logger="edgewise.quality"):
        resumed = evaluate(
            pycoder_bundle.path, heldout, against=against or None, progress=lambda *report: stages.append(report)
        )
    assert "2 of 4 sequences were measured before" in caplog.messages
    assert [report for report in stages if report[0] == "eval"] == [("eval", 3, 4), ("eval", 4, 4)]
    assert resumed.tokens == unbroken.tokens
    assert_allclose(resumed.perplexity, unbroken.perplexity, rtol=1e-6)
    assert list(cache.iterdir()) == []


def test_bundles_can_be_held_against_each_other(
    pycoder: Path, pycoder_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better = build(
        pycoder, output=tmp_path / "int8.edge", recipe=Recipe(eight := (RecipeStep("quantize", {"bits": 8}),))
    )
    assert eight
    options = ["--text", str(pycoder / "heldout.txt"), "--tokens", "128", "--length", "32", "--json"]
    figures = []
    for bundle in (pycoder_bundle, better):
        assert execute(["eval", str(bundle.path), *options, "--against", str(pycoder)]) == 0
        figures.append(json.loads(capsys.readouterr().out))
    assert 20 * figures[1]["distance"]["mean_kld"] < figures[0]["distance"]["mean_kld"]
    assert execute(["eval", str(pycoder_bundle.path), *options, "--against", str(better.path)]) == 0
    beside = json.loads(capsys.readouterr().out)
    assert_allclose(beside["distance"]["reference_perplexity"], figures[1]["perplexity"], rtol=1e-6)
    assert_allclose(beside["distance"]["mean_kld"], figures[0]["distance"]["mean_kld"], rtol=0.2)


def test_people_read_the_figures_as_lines(
    pycoder: Path, pycoder_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    text = str(pycoder / "heldout.txt")
    command = ["eval", str(pycoder_bundle.path), "--text", text, "--tokens", "64", "--length", "32"]
    assert execute([*command, "--against", str(pycoder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "62 tokens, in sequences of 32"
    names = ["perplexity", "bits per byte", "against", "KL divergence", "top-1", "as a draft", "perplexity", "greedy"]
    assert [line.startswith(name) for line, name in zip(lines[1:], names, strict=True)] == [True] * 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--text", "missing.txt"], "text missing.txt does not exist"),
        (["--text", "empty.txt"], "text empty.txt has 0 tokens, and a sequence takes 512"),
        (["--text", "tiny.txt"], "text tiny.txt has 3 tokens, and a sequence takes 512: give more text"),
        (["--text", "text.txt", "--length", "1"], "length: 1 is too short"),
        (["--text", "text.txt", "--tokens", "10"], "tokens: 10 is less than one sequence of 512"),
        (["--text", "text.txt", "--length", "1025"], "sequences of 1,025 tokens do not fit into the model's context"),
        (["--text", "text.txt", "--against", "missing"], "there is no folder missing"),
        (["--text", "text.txt", "--against", "other"], "other reads the text as other tokens than the bundle does"),
        (["--text", "text.txt", "--against", "text.txt"], "text.txt is a file; a checkpoint is a folder"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    options: list[str],
    says: str,
    pycoder: Path,
    pycoder_bundle: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copy(pycoder / "heldout.txt", tmp_path / "text.txt")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "tiny.txt").write_text("import os\n\n")
    other = shutil.copytree(pycoder, tmp_path / "other")
    tokenizer = json.loads((other / "tokenizer.json").read_text("utf-8"))
    tokenizer["normalizer"] = {"type": "Lowercase"}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    monkeypatch.chdir(tmp_path)
    assert execute(["eval", str(pycoder_bundle.path), "--tokens", "2048", *options]) == 1
    talk = capsys.readouterr().err.splitlines()
    assert len(talk) == 1
    assert says in talk[0]


def test_a_text_shorter_than_asked_is_used_up_with_a_warning(
    pycoder_bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "short.txt").write_text("import os\n" * 30)
    found = evaluate(pycoder_bundle.path, CalibrationText(tmp_path / "short.txt", 8192, 32))
    sequences = found.tokens // 31
    assert 0 < sequences < 10
    assert [m.endswith(f"short.txt: {sequences} sequences, of 256 asked for") for m in caplog.messages] == [True]


def test_a_bundle_that_passes_its_gate_has_its_figures_on_the_card(
    pycoder: Path, heldout: CalibrationText, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = Gate(max_mean_kld=0.2, min_top1=0.5)
    bundle = build(
        pycoder, output=tmp_path / "model.edge", recipe=Recipe(DEFAULT, gate), quality=heldout, load_check=False
    )
    assert Bundle.open(bundle.path) == bundle
    card = bundle.manifest.card["quality"]
    found = evaluate(bundle.path, heldout, against=pycoder)
    assert found.distance
    expected = asdict(found) | asdict(found.distance)
    for key in ("mean_kld", "p99_kld", "max_kld", "top1", "perplexity", "perplexity_ratio", "bits_per_byte"):
        assert_allclose(card[key], expected[key], rtol=1e-4, err_msg=key)
    assert card["text"] == "heldout.txt"
    assert card["gate"] == {"max_mean_kld": 0.2, "min_top1": 0.5}
    readme = (bundle.path / "README.md").read_text("utf-8")
    assert "On 124 tokens of heldout.txt, in sequences of 32, against the checkpoint in float32:" in readme
    assert f"KL divergence {card['mean_kld']:.4g} ±" in readme
    assert execute(["inspect", str(bundle.path)]) == 0
    assert f"quality     mean KL divergence {card['mean_kld']:.4g}, p99 " in capsys.readouterr().out


def test_the_same_figures_are_written_twice(pycoder: Path, heldout: CalibrationText, tmp_path: Path) -> None:
    bundles = [build(pycoder, output=tmp_path / name, quality=heldout, load_check=False) for name in ("a", "b")]
    texts = [(bundle.path / "manifest.json").read_bytes() for bundle in bundles]
    assert texts[0] == texts[1]


def test_a_bundle_that_fails_its_gate_is_not_kept(pycoder: Path, heldout: CalibrationText, tmp_path: Path) -> None:
    steps = (RecipeStep("quantize", {"bits": 4, "rules": [{"layers": "1", "bits": 2}]}),)
    recipe = Recipe(steps, Gate(max_mean_kld=0.01))
    with pytest.raises(GateError) as caught:
        build(pycoder, output=tmp_path / "model.edge", recipe=recipe, quality=heldout, load_check=False)
    assert "and 0.01 is the most that the gate allows. What costs most" in str(caught.value)
    assert "of it alone): layer 1 " in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_gate_blames_the_arithmetic_where_weights_cost_little(
    pycoder: Path, heldout: CalibrationText, tmp_path: Path
) -> None:
    recipe = Recipe((RecipeStep("quantize", {"bits": 8, "block_size": 32}),), Gate(max_mean_kld=0.0))
    with pytest.raises(GateError) as caught:
        build(pycoder, output=tmp_path / "model.edge", recipe=recipe, quality=heldout, load_check=False)
    assert "the target's arithmetic costs most. Where int8 activations change a product most" in str(caught.value)
    assert ".mlp.down_proj.weight 0.00" in str(caught.value)


def test_a_gate_needs_a_text(pycoder: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('[[step]]\npass = "quantize"\n[gate]\nmax_mean_kld = 0.1\n')
    assert Recipe.load(path).gate == Gate(max_mean_kld=0.1)
    with pytest.raises(RecipeError, match="needs a text to measure the bundle on: --quality-text FILE"):
        build(pycoder, output=tmp_path / "model.edge", recipe=path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[gate]\nmax_kld = 0.1", "gate: no option is named 'max_kld'; did you mean 'max_p99_kld'"),
        ("[gate]\nmin_top1 = 90", "gate: min_top1 is 90; it is a share, from 0 to 1"),
        ("[gate]\nmin_top1 = 'high'", "gate: min_top1: expected a number, got 'high'"),
        ("[gate]", "gate: it sets no limit"),
        ("gate = 3", "gate: expected a table of options, got 3"),
        ("[gates]\nmin_top1 = 0.9", "unknown key 'gates'; a recipe has [[step]] tables and a [gate]"),
    ],
)
def test_a_wrong_gate_is_named(table: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(table)
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"recipe {path}: {says}")


def test_a_quality_text_that_does_not_exist_is_refused_before_anything_is_written(
    pycoder: Path, tmp_path: Path
) -> None:
    stages: list[str] = []
    with pytest.raises(OptionError, match=r"text none\.txt does not exist"):
        build(
            pycoder,
            output=tmp_path / "model.edge",
            quality=CalibrationText(Path("none.txt")),
            progress=lambda stage, done, total: stages.append(stage),
        )
    assert stages == []
    assert list(tmp_path.iterdir()) == []


def test_quality_tokens_need_a_quality_text(pycoder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(["build", str(pycoder), "-o", "model.edge", "--quality-tokens", "512"]) == 2
    assert "--quality-tokens needs a --quality-text" in capsys.readouterr().err
