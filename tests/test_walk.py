"""tests: a model run layer by layer: what it shows and where it ends, beside the whole graph."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.testing import assert_allclose

from edgewise.calibration.walk import Walk
from edgewise.errors import GraphError, OptionError
from edgewise.graph import Linear, get_facts, linears
from edgewise.rotary import tables
from edgewise.tensors import constant, map_rows
from walks import FAMILIES, TOKENS, export, whole


def walked(model: ir.Model, folder: Path, tokens: np.ndarray = TOKENS, **options: Any) -> np.ndarray:
    """The logits after a walk over all layers."""
    folder.mkdir(exist_ok=True)
    walk = Walk(model, tokens, folder=folder, **options)
    for layer in walk.layers:
        walk.advance(layer)
    return np.concatenate(list(walk.logits())).reshape(*tokens.shape, -1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_walk_ends_at_the_logits_of_the_whole_graph(family: str, home: Path, tmp_path: Path) -> None:
    model = export(family, home)
    logits = whole(model, TOKENS, ["logits"], tmp_path)["logits"]
    assert_allclose(walked(model, tmp_path), logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def test_a_walk_takes_the_rotary_tables_of_the_context_that_is_asked_for(home: Path, tmp_path: Path) -> None:
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [4.0] * 16}
    scaled = {"rope_parameters": {**factors, "rope_theta": 3000.0}, "original_max_position_embeddings": 96}
    model = export("phi3", home, "-longrope", **scaled)
    (rotary,) = get_facts(model).rotary.values()
    short, long = (walked(model, tmp_path / str(context), context=context) for context in (96, 256))
    assert np.abs(short - long).max() > 0.1
    for part, values in zip(("cos", "sin"), tables(rotary, 256), strict=True):
        model.graph.initializers[f"rotary.global.{part}"].const_value = constant(values)
    assert_allclose(walked(model, tmp_path / "graph"), long, atol=1e-5)


def test_linears_of_one_input_are_observed_once(home: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []
    walk = Walk(export("qwen2", home), TOKENS, folder=tmp_path)

    def observe(linears: Sequence[Linear], x: np.ndarray) -> None:
        seen.append(tuple(linear.role for linear in linears))
        assert x.shape == (TOKENS.size, linears[0].matrix.dims[1])

    walk.observe(0, observe)
    assert seen == [
        ("attention.q", "attention.k", "attention.v"),
        ("attention.o",),
        ("mlp.gate", "mlp.up"),
        ("mlp.down",),
    ]


def test_what_is_replaced_in_a_layer_is_seen_by_those_after_it(home: Path, tmp_path: Path) -> None:
    model = export("llama", home)
    before = walked(model, tmp_path)
    walk = Walk(model, TOKENS, folder=tmp_path)
    for layer in walk.layers:
        walk.observe(layer, lambda linears, x: None)
        if layer == 1:
            down = next(linear for linear in linears(model) if linear.role == "mlp.down" and linear.layer == layer)
            down.replace(map_rows(down.matrix, lambda rows: rows * 2))
        walk.advance(layer)
    changed = np.concatenate(list(walk.logits())).reshape(before.shape)
    logits = whole(model, TOKENS, ["logits"], tmp_path)["logits"]
    assert np.abs(changed - before).max() > 0.1
    assert_allclose(changed, logits, rtol=0, atol=1e-5 * np.abs(logits).max())


def test_a_walk_that_keeps_its_states_goes_again_without_computing_them(home: Path, tmp_path: Path) -> None:
    model = export("llama", home)
    walk = Walk(model, TOKENS, folder=tmp_path, keep=True)
    for layer in walk.layers:
        walk.advance(layer)
    first = np.concatenate(list(walk.logits()))
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("hidden.*")}
    again = Walk(model, TOKENS, folder=tmp_path, keep=True)
    seen: list[str] = []
    for layer in again.layers:
        again.observe(layer, lambda linears, x: seen.append(linears[0].role))
        again.advance(layer)
    assert len(written) == len(walk.layers) + 1
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("hidden.*")} == written
    assert seen.count("mlp.down") == len(walk.layers)
    np.testing.assert_array_equal(np.concatenate(list(again.logits())), first)


def test_layers_come_in_order(home: Path, tmp_path: Path) -> None:
    walk = Walk(export("llama", home), TOKENS, folder=tmp_path)
    with pytest.raises(GraphError, match="at layer 0, not at layer 2"):
        walk.advance(2)
    with pytest.raises(GraphError, match="at layer 0, not at layer 4"):
        next(walk.logits())


@pytest.mark.parametrize(
    ("tokens", "says"),
    [
        (np.array([[5, 160]]), "token 160 is not in the model's vocabulary of 160"),
        (np.array([[-1, 5]]), "token -1 is not in the model's vocabulary of 160"),
        (np.full((1, 257), 5), "sequences of 257 tokens do not fit into the model's context of 256"),
        (np.empty((0, 8), np.int64), "no tokens"),
    ],
)
def test_tokens_that_the_model_cannot_take_are_refused(
    tokens: np.ndarray, says: str, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=says):
        Walk(export("llama", home), tokens, folder=tmp_path)
