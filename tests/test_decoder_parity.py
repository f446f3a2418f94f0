"""tests: the canonical graph of every family computes what transformers computes."""

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

import parity
from cases import CASES, Case
from edgewise.facts import Facts
from edgewise.graph import get_facts
from edgewise.writer import write_model


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
    model, path = parity.export(request.param, home), tmp_path_factory.mktemp("graph") / "model.onnx"
    write_model(model, path)
    oracle = parity.oracle(request.param, home)
    return Exported(CASES[request.param], oracle, path, get_facts(model), parity.load(path))


@pytest.mark.parametrize("feeding", parity.FEEDINGS)
def test_logits_are_those_of_transformers(exported: Exported, feeding: str) -> None:
    logits = parity.FEEDINGS[feeding](exported.session(exported.case.context), exported.oracle.tokens)
    assert parity.difference(logits, exported.oracle) <= parity.TOLERANCE


def test_greedy_tokens_are_those_of_transformers(exported: Exported) -> None:
    session = exported.session(exported.case.decode_context)
    assert parity.greedy(session, exported.oracle.tokens[0, : parity.PROMPT]) == exported.oracle.greedy


def test_the_graph_is_valid_onnx(exported: Exported) -> None:
    onnx.checker.check_model(str(exported.path), full_check=True)
