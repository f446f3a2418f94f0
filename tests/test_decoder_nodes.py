"""tests: what the nodes of a canonical graph state of themselves, in every family."""

import re
from pathlib import Path

import numpy as np
import pytest

import tiny
from edgewise.checkpoint import Checkpoint
from edgewise.graph import layer, linears, role
from edgewise_exporters.decoder import Decoder
from edgewise_exporters.decoder.families import FAMILIES


def test_fused_projections_are_rows_of_one_tensor(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(tiny.checkpoint("phi3", tmp_path))
    found = {linear.role: linear for linear in linears(Decoder().export(checkpoint)) if linear.layer == 2}
    whole = checkpoint.tensors["model.layers.2.self_attn.qkv_proj.weight"]
    parts = [found[f"attention.{part}"].matrix.numpy() for part in "qkv"]
    np.testing.assert_array_equal(np.concatenate(parts), whole.numpy())
    assert found["attention.k"].name == "model.layers.2.self_attn.qkv_proj.k.weight"


@pytest.mark.parametrize("family", FAMILIES)
def test_nodes_state_what_they_are(family: str, tmp_path: Path) -> None:
    graph = Decoder().export(Checkpoint.open(tiny.checkpoint(family, tmp_path))).graph
    described = re.findall(r"[a-z_.]+", ROLES)
    for node in graph:
        if role(node) is None:
            assert node.name is not None
            assert node.name.startswith("mask.")
        else:
            assert role(node) in described
            inside = str(role(node)).startswith(("attention", "mlp", "router", "expert", "shared"))
            assert (layer(node) is not None) == inside
    values = {value.name for node in graph for value in node.outputs}
    assert {f"hidden.{i}" for i in range(tiny.COMMON["num_hidden_layers"] + 1)} <= values


ROLES = """
    attention.norm  attention.q  attention.k  attention.v  attention.q.bias  attention.k.bias  attention.v.bias
    attention.q.norm  attention.k.norm  attention.q.rotary  attention.k.rotary  attention  attention.sink  attention.o
    attention.o.bias  attention.post_norm  attention.residual  mlp.norm  mlp.gate  mlp.up  mlp.activation  mlp.product
    mlp.down  mlp.post_norm  mlp.residual  router  router.bias  router.probabilities  router.correction  router.groups
    router.top  router.chosen  router.normalized  router.scaled  router.gates  expert.gate  expert.gate.bias  expert.up
    expert.up.bias  expert.activation  expert.product  expert.down  expert.down.bias  expert.weighted  expert.sum
    shared.gate  shared.up  shared.activation  shared.product  shared.down  shared.router  shared.weighted  shared.sum
    embedding  embedding.scale  norm  lm_head  lm_head.weight  logits
"""
