"""tests: which exporter is asked for a graph, and what each says of a checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgewise.checkpoint import Checkpoint
from edgewise.cli.main import execute
from edgewise.contracts import Offer, Refusal
from edgewise.errors import CheckpointError
from edgewise.exporters import appraisals, exporter_for
from optimum_bridge import VARIABLE, reconfigure


@pytest.fixture
def checkpoint(pycoder: Path, tmp_path: Path) -> Path:
    """A folder to call a checkpoint of another type."""
    return Path(shutil.copytree(pycoder, tmp_path / "checkpoint"))


def test_the_list_says_who_could_export_a_checkpoint_and_what_keeps_the_others(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert execute(["export", "--list", str(checkpoint)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["exporter", "takes", "it", "task", "graph", "cache"]
    assert ["decoder", "yes", "text-generation", "canonical", "in", "place"] in [line.split() for line in lines]
    assert [line for line in lines if line.startswith("optimum: ") and "to make one: python3 -m venv" in line]
    reconfigure(checkpoint, {"model_type": "bert", "architectures": ["BertForSequenceClassification"]})
    assert execute(["export", "--list", "--json", str(checkpoint)]) == 0
    found = {each["exporter"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["decoder"]["supports"] is False
    assert found["decoder"]["reason"].startswith("config.json: no model_type is named 'bert'")
    assert (found["optimum"]["supports"], found["optimum"]["task"]) == (True, "text-classification")


def test_optimum_is_asked_last(checkpoint: Path) -> None:
    opened = Checkpoint.open(checkpoint)
    assert appraisals(opened)[-1].exporter == "optimum"
    assert exporter_for(opened).name == "decoder"
    assert exporter_for(opened, "optimum").name == "optimum"
    opened = reconfigure(checkpoint, {"model_type": "bert", "architectures": ["BertModel"]})
    assert exporter_for(opened).name == "optimum"


def test_the_refusal_of_who_knows_the_type_is_the_one_that_is_shown(checkpoint: Path) -> None:
    opened = reconfigure(checkpoint, {"model_type": "bert", "architectures": ["BertForMaskedLM"]})
    with pytest.raises(CheckpointError, match="nothing runs an architecture like 'BertForMaskedLM'"):
        exporter_for(opened)
    opened = reconfigure(checkpoint, {"model_type": "lama", "architectures": ["LamaForCausalLM"]})
    with pytest.raises(CheckpointError, match="no model_type is named 'lama'; did you mean 'llama'"):
        exporter_for(opened)


@pytest.mark.parametrize(
    ("change", "files"),
    [
        ({"architectures": ["Qwen3ForSequenceClassification"]}, ()),
        ({}, ("modules.json",)),
    ],
)
def test_a_model_of_a_known_family_that_writes_no_text_is_left_to_others(
    checkpoint: Path, change: dict[str, Any], files: tuple[str, ...]
) -> None:
    for name in files:
        (checkpoint / name).write_text("[]")
    found = {each.exporter: each.verdict for each in appraisals(reconfigure(checkpoint, change))}
    assert isinstance(found["decoder"], Refusal)
    assert isinstance(found["optimum"], Offer)
