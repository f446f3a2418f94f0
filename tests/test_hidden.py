"""tests: hidden states as an output: what the lm_head scores, at every position that was appended."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from edgewise.bundle.read import Bundle
from edgewise.errors import GenerationError
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.runtime.model import Model
from edgewise.runtime.rows import Rows
from edgewise.runtime.runner import Runner
from edgewise.runtime.scheduler import Scheduler
from edgewise.runtime.session import Session
from edgewise.search.protocol import Extend

TOKENS = np.random.default_rng(1).integers(4, 4096, 70).tolist()


@pytest.fixture(scope="module")
def bundle(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """In floats, with an output of hidden states."""
    output = tmp_path_factory.mktemp("hidden") / "pycoder.edge"
    return build(pycoder, output=output, recipe=Recipe(()), hidden_states=True)


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model.load(bundle.path, bundle.manifest, threads=1)


@pytest.fixture(scope="module")
def expected(pycoder: Path) -> NDArray[np.float32]:
    """What transformers holds after the final norm."""
    oracle = AutoModelForCausalLM.from_pretrained(pycoder, dtype=torch.float32)
    with torch.no_grad():
        found: NDArray[np.float32] = oracle.model(torch.tensor([TOKENS])).last_hidden_state[0].numpy()
    return found


def assert_close(found: NDArray[np.float32] | None, expected: NDArray[np.float32]) -> None:
    assert found is not None
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize("scores", [1, 5, 70])
def test_hidden_states_are_of_every_position_however_few_are_scored(
    model: Model, expected: NDArray[np.float32], scores: int
) -> None:
    session = Session(model, capacity=70, chunk=32)
    logits = session.prefill(TOKENS, scores=scores, hidden=True)
    assert logits.shape == (scores, model.facts.vocab_size)
    assert_close(session.hidden, expected)


def test_a_search_gets_them_beside_the_scores_of_each_row(model: Model, expected: NDArray[np.float32]) -> None:
    rows = Rows((model,), capacity=70)
    extends = (Extend(0, tuple(TOKENS[:69]), None), Extend(1, tuple(TOKENS[:9]), None))
    for found, count in zip(rows.extend(extends, hidden=True)[1] or (), (69, 9), strict=True):
        assert_close(found, expected[:count])
    step = (Extend(0, (TOKENS[69],), 0), Extend(1, (TOKENS[9],), 1))
    for found, at in zip(rows.extend(step, hidden=True)[1] or (), (69, 9), strict=True):
        assert_close(found, expected[at : at + 1])


def test_scores_are_those_of_a_bundle_without_hidden_states(model: Model, pycoder: Path, tmp_path: Path) -> None:
    plain = build(pycoder, output=tmp_path / "plain.edge", recipe=Recipe(()))
    assert not plain.manifest.hidden_states
    session, other = Session(model, capacity=70), Session(Model.load(plain.path, plain.manifest), capacity=70)
    np.testing.assert_allclose(session.prefill(TOKENS, scores=3), other.prefill(TOKENS, scores=3), rtol=0, atol=1e-4)


def test_the_manifest_and_both_graphs_tell_of_them(pycoder: Path, tmp_path: Path) -> None:
    bundle = build(pycoder, output=tmp_path / "two.edge", prefill="int8", hidden_states=True)
    assert bundle.manifest.hidden_states
    for path in bundle.manifest.graphs.values():
        graph = onnx.load(bundle.path / path, load_external_data=False).graph
        assert "hidden_states" in {value.name for value in graph.output}
    session = Session(Model.load(bundle.path, bundle.manifest, threads=1), capacity=70)
    session.prefill(TOKENS, hidden=True)  # by the graph of prompts
    assert session.hidden is not None
    assert np.isfinite(session.hidden).all()


def test_a_bundle_without_them_says_how_to_get_them(pycoder_bundle: Bundle) -> None:
    session = Session(Model.load(pycoder_bundle.path, pycoder_bundle.manifest), capacity=9)
    with pytest.raises(GenerationError, match="the bundle's graph gives none: build it with --hidden-states"):
        session.prefill([5, 6], hidden=True)
    assert session.length == 0


def test_searches_that_need_them_share_steps_with_others_that_do_not(bundle: Bundle) -> None:
    prompts, options = ["class Queue:\n", "import os\n"], ("contrastive", "greedy")
    with Runner.open(bundle.path, threads=1) as runner, Scheduler(runner) as scheduler:
        wanted = [(prompt, search) for prompt in prompts for search in options]
        alone = [runner.generate(prompt, search=search, max_tokens=12).tokens for prompt, search in wanted]
        streams = [scheduler.submit(prompt, search=search, max_tokens=12) for prompt, search in wanted]
        assert [stream.result().tokens for stream in streams] == alone
