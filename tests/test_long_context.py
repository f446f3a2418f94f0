"""tests: a context beyond the original one, which the rotary embedding `dynamic` reaches: from checkpoint to tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import parity
import tiny
from cases import DYNAMIC, LONGROPE
from edgewise.bundle.read import Bundle
from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError, ContextOverflow, OptionError
from edgewise.graph import get_facts
from edgewise.passes import BuildContext
from edgewise.pipeline import build
from edgewise.prepare import prepare
from edgewise.recipe import Recipe
from edgewise.rotary import tables
from edgewise.runtime.runner import Runner
from edgewise_exporters.decoder import Decoder
from edgewise_targets.ort.lower import LowerOrt

ORIGINAL, REACH = 96, 288  # DYNAMIC has factor 3
LONG = 200
NEW = 8


@pytest.fixture(scope="module")
def checkpoint(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with dynamic scaling, and with the demo's tokenizer."""
    folder = tmp_path_factory.mktemp("dynamic")
    vocabulary = json.loads((pycoder / "config.json").read_text())["vocab_size"]
    tiny.checkpoint("llama", folder, **DYNAMIC, vocab_size=vocabulary)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pycoder / name, folder)
    return folder


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build(checkpoint, output=tmp_path_factory.mktemp("bundle") / "dynamic.edge", recipe=Recipe())


@pytest.mark.parametrize("context", [ORIGINAL, LONG, REACH])
def test_tokens_are_those_of_transformers_in_one_piece_at_that_length(
    checkpoint: Path, bundle: Bundle, context: int
) -> None:
    prompt = np.random.default_rng(1).integers(3, 200, context - NEW).tolist()
    with Runner.open(bundle.path, context=context, threads=1) as runner:
        tokens = runner.generate(prompt, max_tokens=NEW, search="greedy").tokens
    with torch.no_grad():  # of a model of its own: it keeps the frequencies of the longest sequence it has seen
        logits = parity.reference(checkpoint)(torch.tensor([[*prompt, *tokens]])).logits[0]
    assert list(tokens) == logits[-NEW - 1 : -1].argmax(-1).tolist()
    assert len(set(tokens)) > 1


def test_the_default_context_is_the_original_one_and_more_can_be_asked_for(checkpoint: Path, bundle: Bundle) -> None:
    facts = bundle.manifest.language_model
    assert (facts.context_length, facts.original_context, bundle.manifest.context) == (REACH, ORIGINAL, ORIGINAL)
    with pytest.raises(ContextOverflow, match=f"{REACH + 1} tokens was asked for; the model has {REACH}"):
        Runner.open(bundle.path, context=REACH + 1)
    with pytest.raises(OptionError, match=f"not from 1 to {REACH}"):
        prepare(checkpoint, target="cpu-x64", recipe=Recipe(), context=REACH + 1, ignore_config=())


@pytest.mark.parametrize(
    ("family", "rope"), [("llama", DYNAMIC), ("phi3", {**LONGROPE, "max_position_embeddings": 256})]
)
@pytest.mark.parametrize("context", [50, LONG])
def test_a_runtime_that_binds_no_table_finds_that_of_the_bundle_s_context(
    family: str, rope: dict[str, Any], context: int, tmp_path: Path
) -> None:
    model = Decoder().export(Checkpoint.open(tiny.checkpoint(family, tmp_path, **rope)))
    model.meta["edgewise"] = BuildContext(context=context)
    assert LowerOrt()(model).modified
    assert not LowerOrt()(model).modified
    rotary = get_facts(model).rotary["global"]
    for kind, table in zip(("cos", "sin"), tables(rotary, max(context, rotary.original_context)), strict=True):
        tensor = model.graph.initializers[f"rotary.global.{kind}"].const_value
        assert tensor is not None
        np.testing.assert_array_equal(tensor.numpy(), table)


def test_a_reach_that_no_float32_counts_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["rope_parameters"]["factor"] = 1e6
    shutil.copytree(checkpoint, tmp_path / "far")
    (tmp_path / "far" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"'factor' is 1000000\.0; expected a number above 0, at most 174763"):
        Decoder().export(Checkpoint.open(tmp_path / "far"))
