"""tests: the exporter `optimum`: graphs of torch in a Python of its own, and what is refused in one line."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgewise.checkpoint import Checkpoint
from edgewise.cli.main import execute
from edgewise.contracts import Offer, Refusal
from edgewise.errors import CheckpointError, OptionError
from edgewise.exporters import appraisals, exporter_for
from edgewise.facts import EncoderFacts
from edgewise.graph import any_facts, get_facts, role
from edgewise.writer import write_model
from edgewise_exporters.optimum import Optimum, environment
from edgewise_exporters.optimum.child import forbid
from edgewise_exporters.optimum.exporter import read
from edgewise_exporters.optimum.tasks import TYPES, task_of
from edgewise_exporters.optimum.workplace import Workplace
from optimum_bridge import EXPORTED, VARIABLE

ENCODERS = sorted(name for name, task in EXPORTED.items() if "generation" not in task)
DECODERS = ("gpt2", "opt")
LABELS = ("sad", "neutral", "glad")
TOLERANCE = 1e-4


def exported(models: Path, name: str) -> ir.Model:
    """What the exporter makes of what the other Python has left."""
    checkpoint = Checkpoint.open(models / name)
    place = Workplace(checkpoint)
    shutil.copytree(models / f"{name}.onnx", place.output, dirs_exist_ok=True)
    return read(place, checkpoint, EXPORTED[name])


def computed(model: ir.Model, folder: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a graph, by name; keys and values of no token before the first."""
    write_model(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    feeds = {}
    for value in session.get_inputs():
        if "past_key_values" in value.name:
            feeds[value.name] = np.zeros((len(given["input_ids"]), value.shape[1], 0, value.shape[3]), np.float32)
        elif value.name == "token_type_ids":
            feeds[value.name] = np.zeros_like(given["input_ids"])
        elif value.name == "position_ids":
            feeds[value.name] = np.maximum(np.cumsum(given["attention_mask"], 1) - 1, 0)
        else:
            feeds[value.name] = given[value.name]
    outputs = [value.name for value in session.get_outputs()]
    return dict(zip(outputs, session.run(outputs, feeds), strict=True))


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_a_graph_computes_what_torch_does(name: str, optimum_models: Path, tmp_path: Path) -> None:
    reference = np.load(optimum_models / f"{name}.npz")
    found = computed(exported(optimum_models, name), tmp_path, reference)
    output = "hidden" if "hidden" in reference else "logits"
    given, wanted = found["last_hidden_state" if output == "hidden" else "logits"], reference[output]
    counts = reference["attention_mask"].astype(bool) if wanted.ndim == 3 else slice(None)
    assert np.abs(given[counts] - wanted[counts]).max() <= TOLERANCE


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_weights_have_the_names_and_the_bytes_of_the_checkpoint(name: str, optimum_models: Path) -> None:
    tensors = Checkpoint.open(optimum_models / name).tensors
    found = {str(value.name): value.const_value for value in exported(optimum_models, name).graph.initializers.values()}
    matrices = {key for key, tensor in found.items() if tensor is not None and len(tensor.shape) == 2}
    assert matrices <= set(tensors) | {"lm_head.weight"}  # tied: the embedding's, turned
    assert len(matrices) > 5


def test_shared_layers_are_written_once(optimum_models: Path) -> None:
    model = exported(optimum_models, "albert")
    products = [node for node in model.graph if role(node) == "attention.q"]
    assert len(products) == 3
    assert len({node.inputs[1] for node in products}) == 1


def test_a_sentence_encoder_states_pooling_inputs_and_roles(optimum_models: Path) -> None:
    model = exported(optimum_models, "sentence")
    facts = any_facts(model)
    assert isinstance(facts, EncoderFacts)
    assert facts.task == "feature-extraction"
    assert (facts.pooling, facts.normalized, facts.output) == ("mean", True, "last_hidden_state")
    assert facts.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert (facts.context_length, facts.hidden_size, facts.layers) == (48, 32, 2)
    layer = {"attention.q", "attention.k", "attention.v", "attention.o", "mlp.up", "mlp.down"}
    assert {role(node) for node in model.graph} - {None} == layer | {"embedding"}


@pytest.mark.parametrize(("name", "task"), [("distilbert", "text-classification"), ("tokens", "token-classification")])
def test_a_classifier_states_its_labels(name: str, task: str, optimum_models: Path) -> None:
    facts = any_facts(exported(optimum_models, name))
    assert isinstance(facts, EncoderFacts)
    assert facts.task == task
    assert (facts.labels, facts.pooling, facts.output) == (LABELS, None, "logits")


def test_a_decoder_states_its_cache(optimum_models: Path) -> None:
    facts = get_facts(exported(optimum_models, "gpt2"))
    assert [(a.heads, a.kv_heads, a.head_dim) for a in facts.attention] == [(4, 4, 8)] * 2
    assert (facts.context_length, facts.vocab_size, facts.eos) == (128, 264, (2,))


def test_an_encoder_decoder_is_one_graph(optimum_models: Path) -> None:
    model = exported(optimum_models, "t5")
    facts = get_facts(model)
    assert (facts.task, facts.layers, facts.vocab_size) == ("text2text-generation", 2, 33)
    assert "encoder_input_ids" in [value.name for value in model.graph.inputs]


def test_a_graph_that_is_not_what_the_configuration_says_is_refused(optimum_models: Path, tmp_path: Path) -> None:
    for name, change, says in (
        ("sentence", {"hidden_size": 48}, "gives last_hidden_state [batch_size,sequence_length,32]"),
        ("sentence", {"vocab_size": 99}, "has 70 tokens; config.json says 99"),
        ("distilbert", {"id2label": {"0": "no", "1": "yes"}}, "config.json says 2 numbers"),
    ):
        folder = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(optimum_models / name, folder / name)
        shutil.copytree(optimum_models / f"{name}.onnx", folder / f"{name}.onnx")
        reconfigure(folder / name, change)
        with pytest.raises(CheckpointError) as caught:
            exported(folder, name)
        assert says.replace(" ", "") in str(caught.value).replace(" ", "")


def test_a_decoder_is_built_in_one_command_which_says_how_far_it_is_and_writes_what_torch_writes(
    optimum_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    with caplog.at_level(logging.INFO, logger="edgewise_exporters"):
        assert execute(["build", str(optimum_models / "gpt2"), "-o", str(tmp_path / "gpt2.edge")]) == 0
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "loads the checkpoint" in text or "traces the model" in text]
    assert "torch and the graph differ by" in said[-1]
    assert execute(["verify", str(tmp_path / "gpt2.edge")]) == 0
    assert not list((tmp_path / "temporary").iterdir())


def test_a_decoder_in_float_writes_what_torch_writes(optimum_models: Path, tmp_path: Path) -> None:
    model, reference = exported(optimum_models, "opt"), np.load(optimum_models / "opt.npz")
    ids, wanted = reference["greedy"], reference["prompt"].shape[1]
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    chosen = computed(model, tmp_path, given)["logits"].argmax(axis=-1)
    assert chosen[0, wanted - 1 : -1].tolist() == ids[0, wanted:].tolist()


def test_the_types_are_those_that_optimum_says_it_exports(optimum_models: Path) -> None:
    theirs = json.loads((optimum_models / "types.json").read_text())
    for task, kinds in TYPES.items():
        assert kinds <= set(theirs[task]), task


def reconfigure(checkpoint: Path, change: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint with other values in its config.json; None takes a key away."""
    path = checkpoint / "config.json"
    config = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return Checkpoint.open(checkpoint)


@pytest.fixture
def checkpoint(pycoder: Path, tmp_path: Path) -> Path:
    """A folder to call a checkpoint of another type."""
    return Path(shutil.copytree(pycoder, tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"auto_map": {"AutoModel": "model.Bert"}}, "code of the checkpoint (auto_map), which is not run"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized (quantization_config) are not read by optimum"),
        ({"architectures": ["BertForMaskedLM"]}, "nothing runs an architecture like 'BertForMaskedLM'; known: ...ForC"),
        ({"architectures": None}, "config.json has no architectures"),
        ({"architectures": ["BertForCausalLM"]}, "does not export 'bert' for text-generation"),
        ({"model_type": "clip"}, "exports no text model of type 'clip'"),
        ({"model_type": "t5", "architectures": ["T5Model"], "is_encoder_decoder": True}, "like 'T5Model'"),
    ],
)
def test_what_it_does_not_export_is_said_in_one_line(checkpoint: Path, change: dict[str, Any], says: str) -> None:
    config = {"model_type": "bert", "architectures": ["BertModel"], **change}
    opened = reconfigure(checkpoint, config)
    verdict = task_of(opened)
    assert isinstance(verdict, Refusal)
    assert says in verdict.reason
    assert "\n" not in verdict.reason
    with pytest.raises(CheckpointError, match="config"):
        Optimum().export(opened)


def test_code_of_a_checkpoint_can_be_left_alone_where_transformers_knows_the_model(checkpoint: Path) -> None:
    change = {"model_type": "bert", "architectures": ["BertModel"], "auto_map": {"AutoModel": "model.Bert"}}
    refusal = task_of(reconfigure(checkpoint, change))
    assert isinstance(refusal, Refusal)
    assert refusal.reason.endswith("transformers knows 'bert' without it: --ignore-config auto_map")


def python(folder: Path, script: str) -> Path:
    """A program in the place of a Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


GOOD = json.dumps({name: f"{wanted}.0" for name, wanted in environment.VERSIONS.items()})


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '{}'", "has no optimum-onnx; to make one: python3 -m venv"),
        (f"echo '{GOOD.replace('4.57.0', '5.2.0')}'", "has transformers 5.2.0, where 4.57 is needed; to make one"),
        ("exit 3", "it does not run as a Python; to make one"),
        ("echo hello", "it does not run as a Python; to make one"),
    ],
)
def test_a_python_that_cannot_export_is_told_from_one_that_can(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(python(tmp_path, script)))
    with pytest.raises(OptionError) as caught:
        environment.find_python()
    assert says in str(caught.value)
    assert "pip install torch 'optimum-onnx[onnxruntime]==0.1.0'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_python_that_can_export_the_line_that_makes_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(OptionError, match=f"this Python has .*; to make one: .* export {VARIABLE}="):
        environment.find_python()
    monkeypatch.setenv(VARIABLE, "/nowhere/python")
    with pytest.raises(OptionError, match="is /nowhere/python: No such file or directory; to make one"):
        environment.find_python()


@pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ('echo \'{"error": "it lacks the weight"}\'', "it lacks the weight"),
        (
            'echo Traceback >&2; echo \'{"failed": "KeyError: no\\\\nconfig"}\'',
            "optimum cannot export this checkpoint: KeyError: no config; its log: ",
        ),
        (
            'echo \'{"stage": "trace"}\'; kill -9 $$',
            "ended with SIGKILL (is there too little memory?) where it traces the model; its log: ",
        ),
    ],
)
def test_an_export_that_fails_is_one_line_and_its_log_is_kept(
    script: str, says: str, checkpoint: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    script = f"case \"$*\" in *request.json) {script};; *) echo '{GOOD}';; esac"
    monkeypatch.setenv(VARIABLE, str(python(tmp_path, script)))
    opened = reconfigure(checkpoint, {"model_type": "bert", "architectures": ["BertModel"]})
    with pytest.raises(CheckpointError) as caught:
        Optimum().export(opened)
    message = str(caught.value)
    del caught
    assert says in message
    assert "\n" not in message
    if "Traceback" in script:
        assert Path(message.rpartition("log: ")[2]).read_text() == "Traceback\n"
    assert not list((tmp_path / "temporary").iterdir())


CHILD = """
import sys
sys.path.insert(0, {folder!r})
import child
sys.addaudithook(child.forbid)
{does}
"""


@pytest.mark.parametrize(
    "does",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
        "import pickle, pathlib; pickle.loads(pickle.dumps(pathlib.Path('x')))",
    ],
)
def test_an_export_calls_nobody_and_unpickles_nothing(does: str) -> None:
    folder = str(Path(str(forbid.__code__.co_filename)).parent)
    ended = subprocess.run(
        [sys.executable, "-I", "-c", CHILD.format(folder=folder, does=does)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "is not allowed in an export" in ended.stderr


def test_only_the_configuration_and_the_safetensors_of_a_checkpoint_are_given_to_it(checkpoint: Path) -> None:
    (checkpoint / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (checkpoint / "modeling.py").write_text("raise SystemExit")
    (checkpoint / "adapter_config.json").write_text("{}")
    place = Workplace(Checkpoint.open(checkpoint))
    assert sorted(path.name for path in place.checkpoint.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    home = place.path
    del place
    assert not home.exists()


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


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "weight",
            "torch computes no numbers for token-classification from this checkpoint; it lacks the weight class",
        ),
        ("key", "the key 'scores_scale' is not read by transformers 4.57"),
        ("padding", "config.json states no pad_token_id"),
        ("check", "the exported graph and torch disagree: logits differ by"),
    ],
)
def test_what_torch_would_compute_otherwise_is_refused(name: str, says: str, optimum_models: Path) -> None:
    said = json.loads((optimum_models / "refusals.json").read_text())[name]
    assert says in said
    assert "\n" not in said
