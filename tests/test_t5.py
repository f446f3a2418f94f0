"""tests: encoder-decoders of the T5 kind, from a checkpoint to scores, against transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from edgewise.checkpoint import Checkpoint
from edgewise.crossing import SOURCE_IDS, crossings, cut
from edgewise.errors import CheckpointError, EdgewiseError, LoweringError, OptionError
from edgewise.facts import Facts
from edgewise.graph import get_facts
from edgewise.lint import lint
from edgewise.prepare import prepare
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise_exporters.t5 import T5
from edgewise_exporters.t5.distance import around, behind
from encdec import KINDS, encoder_decoder

FAR = 60  # tokens: many times the farthest distance that has a bucket of its own


@pytest.fixture(scope="module")
def models(home: Path) -> dict[str, Any]:
    return {kind: encoder_decoder(kind, home / kind) for kind in KINDS}


def run(graph: ir.Model, facts: Facts, **inputs: Any) -> list[np.ndarray]:
    """All outputs of a graph from an empty cache."""
    a = facts.attention[0]
    empty = np.zeros((1, a.kv_heads, 0, a.head_dim), np.float32)
    names = {value.name for value in graph.graph.inputs}
    given = {name: empty for name in names if name and name.startswith("past")} | inputs
    session = onnxruntime.InferenceSession(ir.serde.serialize_model(graph).SerializeToString())
    found: list[np.ndarray] = session.run(None, given)
    return found


def texts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    source = rng.integers(2, 160, (1, FAR))
    return source, np.concatenate([[[0]], rng.integers(2, 160, (1, FAR - 1))], axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_canonical_graph_scores_as_transformers_does(models: dict[str, Any], home: Path, kind: str) -> None:
    source, answer = texts(np.random.default_rng(0))
    graph = T5().export(Checkpoint.open(home / kind))
    places = {"attention_mask": np.ones_like(answer), "position_ids": np.arange(FAR)[None]}
    logits = run(graph, get_facts(graph), input_ids=answer, **{SOURCE_IDS: source}, **places)[0]
    with torch.no_grad():
        expected = models[kind](input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(answer)).logits
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)


def test_both_halves_together_are_the_whole(models: dict[str, Any], home: Path) -> None:
    source, answer = texts(np.random.default_rng(1))
    graph = T5().export(Checkpoint.open(home / "flan"))
    facts, places = get_facts(graph), {"attention_mask": np.ones_like(answer), "position_ids": np.arange(FAR)[None]}
    decoder, encoder = cut(graph, facts)
    crossed = dict(zip(crossings(facts), run(encoder, facts, input_ids=source), strict=True))
    halves = run(decoder, facts, input_ids=answer, **places, **crossed)
    whole = run(graph, facts, input_ids=answer, **places, **{SOURCE_IDS: source})
    for half, expected in zip(halves, whole, strict=True):
        np.testing.assert_array_equal(half, expected)


@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 12), (6, 300)])
def test_distances_have_the_buckets_of_transformers(models: dict[str, Any], count: int, farthest: int) -> None:
    bucket = models["t5"].decoder.block[0].layer[0].SelfAttention._relative_position_bucket
    offsets = torch.arange(-2 * farthest, 2 * farthest + 1)
    near = offsets.numpy().clip(-farthest, farthest)
    both = bucket(offsets, bidirectional=True, num_buckets=count, max_distance=farthest).numpy()
    past = bucket(offsets, bidirectional=False, num_buckets=count, max_distance=farthest).numpy()
    np.testing.assert_array_equal(around(count, farthest)[near + farthest], both)
    np.testing.assert_array_equal(behind(count, farthest)[-near.clip(None, 0)], past)


def test_a_lowered_graph_is_fit_for_a_processor_and_refused_by_name_for_others(
    models: dict[str, Any], home: Path
) -> None:
    prepared = prepare(home / "t5", target="cpu-x64", recipe=Recipe(), context=None, ignore_config=())
    assert prepared.encoder
    assert not lint(prepared.encoder, registry().get_target("cpu-x64"))
    for target in ("cuda", "openvino-cpu", "qnn-8-elite"):
        with pytest.raises(LoweringError, match="relative"):
            prepare(home / "t5", target=target, recipe=Recipe(), context=None, ignore_config=())


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"feed_forward_proj": "gated-mish"}, "'feed_forward_proj' is 'gated-mish'; expected one of relu"),
        ({"is_encoder_decoder": False}, "'is_encoder_decoder' is False; expected true"),
        ({"decoder_start_token_id": None, "pad_token_id": None}, "with what does an answer begin"),
        ({"decoder_start_token_id": 160}, "'decoder_start_token_id' is 160; expected tokens below vocab_size"),
        ({"num_heads": 8}, "SelfAttention.relative_attention_bias.weight' is"),
        ({"some_new_trick": 2}, "the key 'some_new_trick' .* is not known here"),
        ({"model_type": "umt5"}, "there is no 'umt5' yet: libraries disagree"),
        ({"architectures": ["T5EncoderModel"]}, "'T5EncoderModel' is no encoder-decoder that answers with a text"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(
    models: dict[str, Any], home: Path, tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    for path in (home / "t5").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | changes), "utf-8")
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(EdgewiseError, match=problem) as caught:
        prepare(tmp_path, target="cpu-x64", recipe=Recipe(), context=None, ignore_config=())
    assert "\n" not in str(caught.value)


def test_a_second_graph_for_prompts_is_refused_where_an_encoder_reads_them(models: dict[str, Any], home: Path) -> None:
    with pytest.raises(OptionError, match="which this model has an encoder for"):
        prepare(home / "t5", target="cpu-x64", recipe=None, context=None, ignore_config=(), prefill="int8")


def test_a_tensor_that_is_missing_is_named(models: dict[str, Any], home: Path) -> None:
    checkpoint = Checkpoint.open(home / "t5")
    missing = "decoder.block.1.layer.1.EncDecAttention.k.weight"
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name != missing}
    with pytest.raises(CheckpointError, match=f"'{missing}' is absent"):
        T5().export(Checkpoint(checkpoint.name, home, checkpoint.config, {}, tensors, {}))
