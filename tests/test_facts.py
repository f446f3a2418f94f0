"""tests: what a model is travels in graphs and in manifests, and each task is read by who can run it."""

import json
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest

from edgewise.bundle.manifest import CPU, FORMATS, File, Manifest
from edgewise.bundle.read import Bundle
from edgewise.errors import BundleError, GraphError, OptionError
from edgewise.facts import RUN_BY, EncoderFacts, Facts
from edgewise.graph import FACTS, IR_VERSION, any_facts, get_facts, set_facts
from edgewise.options import convert, record

ENCODER = EncoderFacts("feature-extraction", "bert", 160, 32, 2, 64, "last_hidden_state", pooling="mean")
MANIFEST = Manifest(
    format=2,
    edgewise="0.1.0",
    target="cpu-x64",
    facts=ENCODER,
    graphs={"encoder": "onnx/model.onnx"},
    files={"onnx/model.onnx": File(0, "00")},
    providers=(CPU,),
    context=64,
)


def graph() -> ir.Model:
    return ir.Model(ir.Graph([], [], nodes=[]), ir_version=IR_VERSION)


def test_facts_of_each_task_travel_in_a_graph_and_come_back_as_they_were(pycoder_bundle: Bundle) -> None:
    for facts in (ENCODER, pycoder_bundle.manifest.facts):
        model = graph()
        set_facts(model, facts)
        assert any_facts(model) == facts


def test_what_works_on_decoders_refuses_an_encoder_in_one_line() -> None:
    model = graph()
    set_facts(model, ENCODER)
    with pytest.raises(GraphError, match=r"generate text; the graph is one for feature-extraction \(bert\)") as caught:
        get_facts(model)
    assert "\n" not in str(caught.value)


def test_a_task_that_nobody_knows_is_refused_with_those_that_are_known() -> None:
    model = graph()
    model.metadata_props[FACTS] = json.dumps(record(ENCODER) | {"task": "image-classification"})
    with pytest.raises(OptionError, match=r"no task is named 'image-classification'.*feature-extraction"):
        any_facts(model)
    with pytest.raises(OptionError, match="facts: no task is named"):
        convert(Facts | EncoderFacts, [], what="facts")


def test_a_manifest_of_each_task_comes_back_as_it_was(pycoder_bundle: Bundle) -> None:
    for manifest in (MANIFEST, pycoder_bundle.manifest):
        assert Manifest.read(manifest.write(), where="manifest.json") == manifest


def test_a_bundle_of_text_generation_has_the_format_that_every_edgewise_reads(pycoder_bundle: Bundle) -> None:
    data = json.loads((pycoder_bundle.path / "manifest.json").read_text())
    assert data["format"] == FORMATS["text-generation"] == 1
    assert "task" not in data["facts"]
    assert {FORMATS[task] for task in RUN_BY if task != "text-generation"} == {2}


def test_facts_are_those_of_the_task_that_is_asked_for(pycoder_bundle: Bundle) -> None:
    assert MANIFEST.encoder is ENCODER
    with pytest.raises(BundleError, match=r"for feature-extraction \(bert\), which generates no text: edgewise embed"):
        _ = MANIFEST.language_model
    with pytest.raises(BundleError, match=r"gives neither vectors nor labels: edgewise run and edgewise.Runner run it"):
        _ = pycoder_bundle.manifest.encoder


def test_a_manifest_of_an_older_format_than_its_task_is_refused(tmp_path: Path) -> None:
    text = replace(MANIFEST, format=1).write()
    with pytest.raises(BundleError, match="states format 1, and feature-extraction takes 2"):
        Manifest.read(text, where=str(tmp_path))
