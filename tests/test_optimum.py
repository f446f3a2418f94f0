"""tests: the exporter `optimum`: graphs of torch, made by a Python of its own, compute what torch does."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from edgewise.checkpoint import Checkpoint
from edgewise.cli.main import execute
from edgewise.errors import CheckpointError
from edgewise.facts import EncoderFacts
from edgewise.graph import any_facts, get_facts, role
from edgewise.writer import write_model
from edgewise_exporters.optimum.exporter import read
from edgewise_exporters.optimum.tasks import TYPES
from edgewise_exporters.optimum.workplace import Workplace
from optimum_bridge import EXPORTED, reconfigure

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


def test_a_decoder_is_built_in_one_command_which_says_how_far_its_graph_is_from_torch(
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


def test_after_each_of_its_tokens_a_decoder_would_write_what_torch_writes(optimum_models: Path, tmp_path: Path) -> None:
    model, reference = exported(optimum_models, "opt"), np.load(optimum_models / "opt.npz")
    ids, wanted = reference["greedy"], reference["prompt"].shape[1]
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    chosen = computed(model, tmp_path, given)["logits"].argmax(axis=-1)
    assert chosen[0, wanted - 1 : -1].tolist() == ids[0, wanted:].tolist()


def test_the_types_are_those_that_optimum_says_it_exports(optimum_models: Path) -> None:
    theirs = json.loads((optimum_models / "types.json").read_text())
    for task, kinds in TYPES.items():
        assert kinds <= set(theirs[task]), task


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "weight",
            "torch computes no numbers for token-classification from this checkpoint; it lacks the weight class",
        ),
        ("key", "the key 'scores_scale' is not read by transformers 4.57"),
        ("sparse", "attention_type is block_sparse: a trace has full attention"),
        ("padding", "config.json states no pad_token_id"),
        ("check", "the exported graph and torch disagree: logits differ by"),
    ],
)
def test_what_torch_would_compute_otherwise_is_refused(name: str, says: str, optimum_models: Path) -> None:
    said = json.loads((optimum_models / "refusals.json").read_text())[name]
    assert says in said
    assert "\n" not in said
