"""tests: the canonical graph of every family computes what transformers computes."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

import families
import parity
import tiny
from cases import CASES, Case
from edgewise.checkpoint import Checkpoint
from edgewise.facts import Facts
from edgewise.graph import get_facts
from edgewise.writer import write_model
from edgewise_exporters.decoder import Decoder
from edgewise_exporters.decoder.families import FAMILIES


@dataclass(frozen=True)
class Exported:
    """A case as a canonical graph."""

    case: Case
    oracle: parity.Oracle
    path: Path
    facts: Facts
    graph: ort.InferenceSession

    def session(self, context: int) -> parity.Session:
        return parity.Canonical(self.graph, self.facts, context)


@pytest.fixture(scope="module", params=CASES)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    home = tmp_path_factory.getbasetemp()
    model = parity.export(request.param, home)
    return _exported(model, CASES[request.param], parity.oracle(request.param, home), tmp_path_factory.mktemp("graph"))


def _exported(model: ir.Model, case: Case, oracle: parity.Oracle, folder: Path) -> Exported:
    path = folder / "model.onnx"
    write_model(model, path)
    return Exported(case, oracle, path, get_facts(model), parity.load(path))


@pytest.mark.parametrize("feeding", parity.FEEDINGS)
def test_logits_are_those_of_transformers(exported: Exported, feeding: str) -> None:
    logits = parity.FEEDINGS[feeding](exported.session(exported.case.context), exported.oracle.tokens)
    assert parity.difference(logits, exported.oracle) <= parity.TOLERANCE


def test_greedy_tokens_are_those_of_transformers(exported: Exported) -> None:
    session = exported.session(exported.case.decode_context)
    assert parity.greedy(session, exported.oracle.tokens[0, : parity.PROMPT]) == exported.oracle.greedy


def test_the_graph_is_valid_onnx(exported: Exported) -> None:
    onnx.checker.check_model(str(exported.path), full_check=True)


GEMMA3_SWAPPED = {
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 300.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 30_000.0},
    }
}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gemma2", {"layer_types": ["full_attention", "sliding_attention"] * 2}),
        ("gemma2", {"attn_logit_softcapping": 4.1}),
        ("gemma2", {"final_logit_softcapping": 5.1}),
        ("gemma2", {"query_pre_attn_scalar": 25}),
        ("gemma3", GEMMA3_SWAPPED),
        ("llama", {"rms_norm_eps": 1e-6}),
        ("mistral", {"sliding_window": 7}),
        ("mistral", {"sliding_window": 9}),
        ("phi3 longrope", {"max_position_embeddings": 255}),
        ("qwen2", {"layer_types": ["full_attention"] * 3 + ["sliding_attention"]}),
        ("smollm3", {"no_rope_layers": [1, 0, 1, 1]}),
    ],
)
def test_the_oracle_sees_a_configuration_that_is_slightly_off(
    name: str, change: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    case, oracle = CASES[name], parity.oracle(name, tmp_path_factory.getbasetemp())
    checkpoint = Checkpoint.open(oracle.checkpoint)
    model = Decoder().export(replace(checkpoint, config={**checkpoint.config, **change}))
    off = _exported(model, case, oracle, tmp_path_factory.mktemp("off"))
    logits = parity.in_one_piece(off.session(case.context), oracle.tokens)
    assert parity.difference(logits, oracle) > 10 * parity.TOLERANCE


def test_a_trained_checkpoint_computes_what_transformers_computes(pycoder: Path, tmp_path: Path) -> None:
    _compare(Decoder().export(Checkpoint.open(pycoder)), pycoder, tmp_path)


def test_the_family_that_the_documentation_adds_computes_what_transformers_computes(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", families.PAGE.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    checkpoint = tiny.checkpoint("gemma", tmp_path / "gemma", head_dim=32, tie_word_embeddings=True)
    _compare(names["Gemma"]().export(Checkpoint.open(checkpoint)), checkpoint, tmp_path)


def _compare(model: ir.Model, checkpoint: Path, folder: Path) -> None:
    """A model without a case, in every way of feeding."""
    tokens = np.random.default_rng(0).integers(3, get_facts(model).vocab_size, (parity.ROWS, 100))
    with torch.no_grad():
        logits = parity.reference(checkpoint)(torch.from_numpy(tokens)).logits.numpy()
    oracle = parity.Oracle(checkpoint, tokens, logits, greedy=())
    exported = _exported(model, CASES["llama"], oracle, folder)
    for feed in parity.FEEDINGS.values():
        assert parity.difference(feed(exported.session(256), tokens), oracle) <= parity.TOLERANCE


def test_the_table_of_families_is_that_of_these_tests() -> None:
    assert {case.family for case in CASES.values()} == set(FAMILIES)
    assert families.PAGE.read_text("utf-8") == families.page(CASES), "run: python tests/families.py"
