"""tests: the canonical graph in torch computes what ONNX Runtime computes of it, and differentiates it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from canonical import graph, logits, tokens
from edgewise_plugins.distill.executor import Executor

TOKENS = tokens(2, 24)


def values_of(executor: Executor, input_ids: np.ndarray, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """In NumPy, without gradients."""
    with torch.no_grad():
        found = executor(torch.from_numpy(input_ids), wanted)
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.mark.parametrize("family", sorted(tiny.FAMILIES))
def test_torch_computes_what_onnx_runtime_computes(family: str, tmp_path: Path) -> None:
    model = graph(tiny.checkpoint(family, tmp_path))
    found = values_of(Executor(model), TOKENS, ["logits"])["logits"]
    expected = logits(model, TOKENS)
    assert np.abs(found.reshape(expected.shape) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen2_moe", "glm4_moe", "gpt_oss"])
def test_gradients_are_those_of_finite_differences(family: str, tmp_path: Path) -> None:
    executor = Executor(graph(tiny.checkpoint(family, tmp_path))).double()
    sequence = torch.from_numpy(TOKENS[:1, :6])

    def loss() -> torch.Tensor:
        scores: torch.Tensor = executor(sequence)["logits"]
        return scores.log_softmax(dim=-1)[0, :, 3].sum()

    loss().backward()  # type: ignore[no-untyped-call]
    rng, step = np.random.default_rng(0), 1e-5
    for name, parameter in list(executor.weights())[:: max(1, len(list(executor.weights())) // 9)]:
        place = tuple(int(rng.integers(size)) for size in parameter.shape)
        if name == "model.embed_tokens.weight":
            place = (int(TOKENS[0, 2]), *place[1:])
        assert parameter.grad is not None
        with torch.no_grad():
            parameter[place] += step
            above = loss()
            parameter[place] -= 2 * step
            below = loss()
            parameter[place] += step
        assert float(parameter.grad[place]) == pytest.approx(float((above - below) / (2 * step)), rel=1e-3, abs=1e-6)


def test_hidden_states_are_given_and_what_follows_them_is_not_computed(tmp_path: Path) -> None:
    model = graph(tiny.checkpoint("llama", tmp_path))
    executor = Executor(model)
    found = values_of(executor, TOKENS, ["hidden.2"])
    assert found["hidden.2"].shape == (*TOKENS.shape, 64)
    assert len(executor._needed(("hidden.2",), ())) < len(executor.nodes) / 2 + 10


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen3_moe", "smollm3"])
def test_a_text_goes_on_from_a_cache_as_it_would_from_its_beginning(family: str, tmp_path: Path) -> None:
    executor = Executor(graph(tiny.checkpoint(family, tmp_path)))
    text = torch.from_numpy(TOKENS)
    caches = [f"{i}.{kind}" for i in range(executor.layers) for kind in ("key", "value")]
    with torch.no_grad():
        whole = executor(text)["logits"]
        said = executor(text[:, :20], ("logits", *(f"present.{name}" for name in caches)))
        given = {f"past_key_values.{name}": said[f"present.{name}"] for name in caches}
        given |= {"attention_mask": torch.ones_like(text), "position_ids": torch.arange(20, 24).expand(2, 4)}
        rest = executor(text[:, 20:], ("logits",), given)["logits"]
    assert torch.allclose(torch.cat([said["logits"], rest], dim=1), whole, atol=1e-4)


def test_a_layer_is_computed_from_hidden_states_that_are_given(tmp_path: Path) -> None:
    executor = Executor(graph(tiny.checkpoint("llama", tmp_path)))
    text = torch.from_numpy(TOKENS)
    with torch.no_grad():
        states = executor(text, ["hidden.1", "hidden.2"])
        found = executor(text, ["hidden.2"], {"hidden.1": states["hidden.1"]})["hidden.2"]
    assert torch.equal(found, states["hidden.2"])
    assert len(executor._needed(("hidden.2",), ("hidden.1",))) < len(executor._needed(("hidden.2",), ()))


def test_weights_go_back_into_the_graph(tmp_path: Path) -> None:
    model = graph(tiny.checkpoint("llama", tmp_path))
    executor = Executor(model)
    with torch.no_grad():
        for name, parameter in executor.weights():
            if "mlp" in name:
                parameter.mul_(0.5)
    found = values_of(executor, TOKENS, ["logits"])["logits"]
    executor.write_back(model)
    expected = logits(model, TOKENS)
    assert np.abs(found.reshape(expected.shape) - expected).max() < 1e-4 * np.abs(expected).max()
