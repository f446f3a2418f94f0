"""tests: what a bundle says of graphs that leave their cache to the runtime, and who may run it."""

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from edgewise.bundle.manifest import Cache
from edgewise.bundle.read import Bundle
from edgewise.cli.inspect import inspect
from edgewise.errors import OptionError
from edgewise.pipeline import build
from fixed import CONTEXT, FIXED


@pytest.fixture(scope="module")
def bundle(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = replace(FIXED, threads=1)
    return build(pycoder, target=target, output=tmp_path_factory.mktemp("fixed") / "fixed.edge", load_check=False)


def test_a_target_with_fixed_lengths_gets_a_graph_for_prompts_and_one_that_decodes(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.cache == Cache("float32", shared=False, capacity=CONTEXT, prefill=128)
    assert manifest.context == CONTEXT
    assert (set(manifest.graphs), manifest.prefill_from, manifest.threads) == ({"prefill", "decode"}, 3, 1)
    for name, width in (("prefill", 128), ("decode", 1)):
        graph = onnx.load(bundle.graph(name), load_external_data=False).graph
        lengths = {each.name: [d.dim_value for d in each.type.tensor_type.shape.dim] for each in graph.input}
        assert lengths["input_ids"] == [1, width]
        assert lengths["attention_bias"] == [1, 1, width, CONTEXT + width]


def test_people_read_the_lengths_by_inspect(bundle: Bundle) -> None:
    shown = CliRunner().invoke(inspect, [str(bundle.path)]).output
    assert f"\nlengths     fixed: 128 tokens of a prompt at a time, or one, in a cache of {CONTEXT}\n" in shown


def test_runtimes_that_keep_a_cache_of_their_own_way_are_not_told_how_to_run_it(bundle: Bundle) -> None:
    assert not (bundle.path / "genai_config.json").exists()
    assert "transformers.js_config" not in json.loads((bundle.path / "config.json").read_text())
    readme = (bundle.path / "README.md").read_text()
    assert "onnxruntime-genai" not in readme


def test_what_graphs_of_fixed_lengths_do_not_have_is_refused(pycoder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'fixed' has graphs of fixed lengths, which go without hidden states$"):
        build(pycoder, target=FIXED, output=tmp_path / "x", hidden_states=True)
    with pytest.raises(OptionError, match=r"which go without prefill 'int8'$"):
        build(pycoder, target=FIXED, output=tmp_path / "x", prefill="int8")
    assert not (tmp_path / "x").exists()
