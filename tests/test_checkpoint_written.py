"""tests: checkpoints that are written: transformers computes of them what the graph computes, whatever was pruned."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

import tiny
from canonical import PYCODER, calibrated, graph, logits, tokens
from edgewise.checkpoint import Checkpoint
from edgewise.companions import Companions
from edgewise.errors import BundleError, GraphError, RecipeError
from edgewise.exporters import export_graph
from edgewise.exporting import export, write_checkpoint
from edgewise.graph import linears, role
from edgewise.prepare import open_checkpoint
from edgewise.recipe import Recipe, RecipeStep
from edgewise.tensors import constant
from edgewise_exporters.decoder import Decoder
from edgewise_plugins.moe.prune import PruneExperts
from edgewise_plugins.prune.depth import remove_layers
from edgewise_plugins.prune.heads import PruneHeads
from edgewise_plugins.prune.width import PruneWidth
from edgewise_plugins.quantize import Quantize
from parity import reference

TEXT, FRESH = tokens(24, 32), tokens(3, 40, seed=9)
TOLERANCE = 1e-4  # of the largest logit

pytestmark = pytest.mark.usefixtures("cache")

Change = Callable[[ir.Model], object]


def layers(model: ir.Model) -> None:
    remove_layers(model, [0, 2])


def width(model: ir.Model) -> None:
    PruneWidth(keep=0.5, multiple=8, refit=False)(model)


def refitted(model: ir.Model) -> None:
    PruneWidth(keep=0.5, multiple=8)(model)
    PruneHeads(keep=0.5)(model)


def experts(model: ir.Model) -> None:
    PruneExperts(keep=4)(model)


def quantized(model: ir.Model) -> None:
    Quantize(bits=4, block_size=32)(model)


GROUPED = ("dots1", "glm4_moe")  # whose experts cannot be taken out one by one
MIXTURES = [name for name, family in tiny.FAMILIES.items() if "num_experts_per_tok" in str(family)]
DENSE = [name for name in tiny.FAMILIES if name not in MIXTURES]
CHANGES: list[tuple[str, Change]] = [
    *((family, layers) for family in tiny.FAMILIES),
    *((family, width) for family in DENSE),
    *((family, experts) for family in MIXTURES if family not in GROUPED),
    *((family, refitted) for family in ("llama", "smollm3")),
    ("llama", quantized),
]


def changed(family: str, change: Change, folder: Path) -> tuple[ir.Model, Checkpoint]:
    source = open_checkpoint(tiny.checkpoint(family, folder))
    model = calibrated(export_graph(source), TEXT)
    change(model)
    return model, source


@pytest.mark.parametrize(("family", "change"), CHANGES, ids=lambda value: getattr(value, "__name__", value))
def test_transformers_computes_what_the_graph_computes(family: str, change: Change, tmp_path: Path) -> None:
    model, source = changed(family, change, tmp_path / "source")
    expected = logits(model, FRESH)
    (tmp_path / "written").mkdir()
    write_checkpoint(Decoder().checkpoint(model, source), Companions(source), tmp_path / "written")
    with torch.no_grad():
        found = reference(tmp_path / "written")(torch.from_numpy(FRESH)).logits.numpy()
    assert np.abs(found.reshape(expected.shape) - expected).max() < TOLERANCE * np.abs(expected).max()
    again = graph(tmp_path / "written")
    assert np.abs(logits(again, FRESH) - expected).max() < TOLERANCE * np.abs(expected).max()


def biased(model: ir.Model) -> None:
    PruneWidth(keep=0.5, multiple=8)(model)


def uneven(model: ir.Model) -> None:
    """One layer is not as wide as the others."""
    down = next(linear for linear in linears(model) if linear.role == "mlp.down")
    down.replace(constant(down.matrix.numpy()[:, :-8].copy()))


def moved(model: ir.Model) -> None:
    """Another epsilon of one norm alone."""
    node = next(node for node in model.graph if role(node) == "mlp.norm")
    node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.5)


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("qwen2", biased, "no 'qwen2' checkpoint any more: tensor 'model.layers.0.mlp.down_proj.bias'"),
        ("gemma2", biased, "no 'gemma2' checkpoint any more: tensor 'model.layers.0.mlp.down_proj.bias'"),
        ("llama", uneven, r"layers differ in their intermediate_size \(88 and 96\)"),
        ("llama", moved, r"'mlp.norm' in layer 0 \(RMSNormalization\(.*0.5.*\) has no place in a 'llama'"),
    ],
)
def test_what_a_family_has_no_place_for_is_one_line(family: str, change: Change, message: str, tmp_path: Path) -> None:
    model, source = changed(family, change, tmp_path)
    with pytest.raises(GraphError, match=message) as caught:
        Decoder().checkpoint(model, source)
    assert "\n" not in str(caught.value)


def test_a_recipe_becomes_a_checkpoint_with_its_tokenizer(tmp_path: Path) -> None:
    recipe = Recipe((RecipeStep("quantize", {"bits": 8}),))
    path = export(PYCODER, tmp_path / "written", form="safetensors", recipe=recipe)
    assert path == tmp_path / "written" / "model.safetensors"
    names = {path.name for path in (tmp_path / "written").iterdir()}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= names
    text = tokens(1, 16)
    again, source = graph(tmp_path / "written"), graph(PYCODER)
    assert 0 < np.abs(logits(again, text) - logits(source, text)).max() < 1


def test_a_checkpoint_is_not_replaced_by_force(tmp_path: Path) -> None:
    source = tiny.checkpoint("llama", tmp_path / "source")
    with pytest.raises(BundleError):
        export(source, source, form="safetensors", force=True)
    assert graph(source)


def test_a_step_that_fails_is_named(tmp_path: Path) -> None:
    recipe = Recipe((RecipeStep("prune-width", {}),))
    with pytest.raises(RecipeError, match=r"step 1, prune-width.*: .*--calibration-text"):
        export(PYCODER, tmp_path / "written", form="safetensors", recipe=recipe)
    assert not os.path.exists(tmp_path / "written")
