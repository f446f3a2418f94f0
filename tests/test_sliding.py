"""tests: models that look back a window of tokens: a session gives what transformers gives, far beyond the window."""

import numpy as np
import pytest

import parity
from cases import CASES
from edgewise.graph import get_facts
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.writer import write_model
from edgewise_targets.ort.lower import LowerOrt

WINDOW = 8  # of all of these; their texts are five times as long

# All layers, every other one, the later ones, two rotary embeddings.
NAMES = ["mistral", "gemma2", "qwen2", "qwen3", "gemma3"]


@pytest.fixture(scope="module", params=NAMES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, parity.Oracle]:
    home, path = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("lowered") / "model.onnx"
    canonical = parity.export(request.param, home)
    facts = get_facts(canonical)
    assert WINDOW in {attention.window for attention in facts.attention}
    assert CASES[request.param].length == 5 * WINDOW
    write_model(LowerOrt()(canonical).model, path)
    return Model(path, facts, context=64, threads=1), parity.oracle(request.param, home)


@pytest.mark.parametrize("chunk", [3, WINDOW - 1, WINDOW, WINDOW + 1, 40])
def test_prompts_in_chunks_of_any_length(case: tuple[Model, parity.Oracle], chunk: int) -> None:
    model, oracle = case
    scores = Session(model, capacity=9, chunk=chunk).prefill(oracle.tokens[0].tolist(), scores=40)
    assert parity.difference([scores], oracle) <= parity.TOLERANCE


@pytest.mark.parametrize("prompt", [1, WINDOW - 1, WINDOW + 3, 30])
def test_tokens_after_a_prompt_and_after_a_rewind(case: tuple[Model, parity.Oracle], prompt: int) -> None:
    model, oracle = case
    tokens = oracle.tokens[0].tolist()
    session = Session(model, capacity=9)
    session.prefill(tokens)
    session.rewind(prompt - 1)
    scores = [session.prefill(tokens[prompt - 1 : prompt]).copy()]
    scores += [session.decode(token).copy() for token in tokens[prompt:]]
    found = np.concatenate(scores)
    expected = oracle.logits[0, prompt - 1 :]
    assert np.abs(found - expected).max() <= parity.TOLERANCE * np.abs(expected).max()
