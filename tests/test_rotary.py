"""tests: rotary tables are those of transformers, however long, and in whatever pieces they are read."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from edgewise.facts import Rotary
from edgewise.rotary import frequencies, table, tables
from edgewise_exporters.decoder.config import Config
from edgewise_exporters.decoder.families import FAMILIES
from edgewise_exporters.decoder.rope import read_rotary

CONTEXT = 131_072
HEAD_DIM = 64

KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768},
    "yarn, all numbers": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 4096,
        "mscale": 1.0,
        "mscale_all_dim": 0.8,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
        "truncate": False,
    },
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0 + 0.01 * i for i in range(HEAD_DIM // 2)],
        "long_factor": [1.0 + 0.7 * i for i in range(HEAD_DIM // 2)],
        "original_max_position_embeddings": 4096,
    },
}


def _config(kind: str, theta: float) -> Any:
    parameters = {**KINDS[kind], "rope_theta": theta}
    longest = CONTEXT // 2 if kind == "dynamic" else CONTEXT
    return transformers.LlamaConfig(
        hidden_size=4 * HEAD_DIM,
        num_attention_heads=4,
        max_position_embeddings=longest,
        rope_parameters=parameters,
    )


def _rotary(config: Any) -> Rotary:
    return read_rotary(Config(config.to_dict(), where="config.json"), FAMILIES["llama"], HEAD_DIM)["global"]


@pytest.mark.parametrize("theta", [10_000.0, 500_000.0, 1_000_000.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_that_of_transformers(kind: str, theta: float) -> None:
    config = _config(kind, theta)
    reference = LlamaRotaryEmbedding(config)
    positions = np.unique(np.geomspace(1, CONTEXT, 300).astype(np.int64)) - 1
    waves = reference(torch.zeros(1), torch.from_numpy(positions)[None])
    rotary = _rotary(config)
    ours, theirs = frequencies(rotary, CONTEXT), reference.inv_freq.numpy()
    # A power in float32 is not always rounded to the nearest; llama3 then subtracts numbers of the same size.
    assert (np.abs(ours - theirs) <= 4 * np.spacing(theirs)).all()
    same = ours == theirs
    assert same.mean() > 0.9
    for mine, wave in zip(tables(rotary, CONTEXT), waves, strict=True):
        expected = wave[0, :, : HEAD_DIM // 2].numpy()
        assert np.abs(mine[positions] - expected)[:, same].max() <= np.spacing(np.float32(1.5))  # yarn goes above 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_can_be_read_in_pieces(kind: str) -> None:
    rotary = _rotary(_config(kind, 10_000.0))
    cos, sin = tables(rotary, 100)
    assert cos.shape == sin.shape == (100, HEAD_DIM // 2)
    assert cos.dtype == sin.dtype == np.float32
    for whole, name in ((cos, "cos"), (sin, "sin")):
        pieces = [table(name, rotary, 100, start, start + 20) for start in range(0, 100, 20)]  # type: ignore[arg-type]
        np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_dynamic_scaling_begins_beyond_the_original_context() -> None:
    rotary = Rotary(dim=16, theta=10_000.0, type="dynamic", original_context=64, parameters={"factor": 2.0})
    plain = Rotary(dim=16, theta=10_000.0)
    np.testing.assert_array_equal(_cos(rotary, 64), _cos(plain, 64))
    assert np.abs(_cos(rotary, 65)[:64] - _cos(plain, 64)).max() > 1e-3
    assert rotary.follows_context


def test_longrope_takes_its_long_factors_beyond_the_original_context() -> None:
    parameters: dict[str, float | tuple[float, ...]]
    parameters = {"short_factor": (1.0, 1.0), "long_factor": (2.0, 4.0), "attention_factor": 1.5}
    rotary = Rotary(dim=4, theta=100.0, type="longrope", original_context=64, parameters=parameters)
    np.testing.assert_allclose(frequencies(rotary, 64), [1.0, 0.1], rtol=1e-6)
    np.testing.assert_allclose(frequencies(rotary, 65), [0.5, 0.025], rtol=1e-6)
    assert _cos(rotary, 64)[0, 0] == 1.5


def _cos(rotary: Rotary, context: int) -> NDArray[np.float32]:
    return tables(rotary, context)[0]
