"""tests: encoder-decoders that optimum-onnx 0.1.0 has traced: three graphs become one, which runs as others do.

`tests/fixtures/crossed/NAME` is a checkpoint of transformers 4.57, and what optimum made of it.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import transformers

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError, GraphError
from edgewise.graph import OPSET, get_facts, remarks
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.registry import registry
from edgewise.runtime.generation import Options
from edgewise.runtime.runner import Runner
from edgewise_exporters.crossed import adopt, join
from edgewise_exporters.crossed.proof import scores, some_tokens
from edgewise_exporters.optimum import exporter
from edgewise_exporters.optimum.workplace import Workplace
from test_encoder_decoder import REFUSED
from test_every_search import ASSISTED, table

FIXTURES = Path(__file__).parent / "fixtures/crossed"
GRAPHS = ("encoder_model", "decoder_model", "decoder_with_past_model")
LIMIT = 24


class Unknown:
    """In the place of the exporter `t5`: what is not recognised."""

    def supports(self, checkpoint: Checkpoint) -> bool:
        return False


def traced(name: str) -> list[ir.Model]:
    models = [ir.load(FIXTURES / name / f"{graph}.onnx") for graph in GRAPHS]
    for model in models:
        model.graph.opset_imports[""] = OPSET
    return models


def opened(name: str, **changes: Any) -> Checkpoint:
    checkpoint = Checkpoint.open(FIXTURES / name)
    return replace(checkpoint, config={**checkpoint.config, **changes})


def one_of(name: str, **changes: Any) -> ir.Model:
    encoder, first, step = traced(name)
    return join(encoder, first, step, opened(name, **changes))


def reference(name: str) -> Any:
    model: Any = transformers.AutoModelForSeq2SeqLM.from_pretrained(FIXTURES / name, dtype=torch.float32)
    return model


def expected(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A source, an answer, and the scores that transformers gives after each of its tokens."""
    source, answer = some_tokens(int(opened(name).config["vocab_size"]))
    with torch.no_grad():
        logits = reference(name)(input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(answer)).logits
    return source, answer, logits.numpy()


def test_what_is_recognised_gets_canonical_operators() -> None:
    model = one_of("t5")
    assert get_facts(model).stated
    assert "canonical operators score within" in remarks(model)[0]
    source, answer, logits = expected("t5")
    np.testing.assert_allclose(scores(model, source, answer, width=4), logits, atol=1e-4)


@pytest.mark.parametrize("name", ["t5", "marian"])
def test_what_is_not_recognised_keeps_its_operators_and_scores(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(adopt, "T5", Unknown)
    model = one_of(name, n_positions=64)
    assert not get_facts(model).stated
    source, answer, logits = expected(name)
    for width in (1, 4, 8):
        np.testing.assert_allclose(scores(model, source, answer, width=width), logits, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "kind", "problem"),
    [
        ({"relative_attention_max_distance": 9}, GraphError, "away from what config.json describes"),
        ({"tie_word_embeddings": False}, GraphError, "away from what config.json describes"),
        ({"model_type": "longer"}, CheckpointError, "config.json states no context length; it would be one of"),
        ({"model_type": "longer", "n_positions": 64, "num_heads": 2}, CheckpointError, "2 layers of 2 heads, and the"),
        ({"model_type": "longer", "n_positions": 64, "num_decoder_layers": 1}, CheckpointError, "1 layers of 4 heads"),
    ],
)
def test_traces_of_something_else_are_refused(changes: dict[str, Any], kind: type[Exception], problem: str) -> None:
    with pytest.raises(kind, match=problem) as caught:
        one_of("t5", **changes)
    assert "\n" not in str(caught.value)


def test_a_graph_that_lacks_keys_of_the_source_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "T5", Unknown)
    monkeypatch.setattr(adopt, "traced_scores", lambda *_: np.zeros((1, 8, 33), np.float32))
    encoder, first, step = traced("t5")
    first.graph.outputs[:] = [value for value in first.graph.outputs if value.name != "present.1.encoder.key"]
    with pytest.raises(GraphError, match="in another way than by heads"):
        join(encoder, first, step, opened("t5", n_positions=64))


@dataclass(frozen=True)
class Made:
    """An answer of transformers, and a bundle of traced operators, open."""

    source: list[int]
    greedy: list[int]
    runner: Runner


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """By the exporter `optimum`, which takes the graphs beside a checkpoint where it would have torch trace them."""

    def copy(python: object, place: Workplace, task: str) -> None:
        (weights,) = place.checkpoint.glob("*.safetensors")
        for graph in GRAPHS:
            shutil.copyfile(weights.resolve().parent / f"{graph}.onnx", place.output / f"{graph}.onnx")

    path = tmp_path_factory.mktemp("traced") / "traced.edge"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "run", copy)
        patch.setattr(exporter, "find_python", lambda: Path("python"))
        build(FIXTURES / "marian", output=path, recipe=Recipe(), load_check=False)
    source = [5, 9, 3, 17, 30, 2, 8, 1]
    answer = reference("marian").generate(torch.tensor([source]), max_new_tokens=LIMIT, do_sample=False, num_beams=1)
    with Runner.open(path, threads=1) as runner:
        yield Made(source, [token for token in answer[0].tolist()[1:] if token != 1], runner)


@pytest.mark.parametrize("name", sorted({*registry().searches.names()} - {*REFUSED, "contrastive"}))
def test_every_search_runs_on_traced_operators(made: Made, name: str) -> None:
    search, assistants = table(name), [made.runner] if name in ASSISTED else None
    given: Options = {"search": search, "seed": 3, "max_tokens": LIMIT, "assistants": assistants}
    found = made.runner.generate(made.source, **given)
    assert found.completions == made.runner.generate(made.source, **given).completions
    if name in ("greedy", "speculative", "lookup"):
        assert list(found.tokens) == made.greedy
