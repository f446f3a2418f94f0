"""tests: the decoder exporter understands a checkpoint wholly, or refuses it in one line."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError
from edgewise.graph import get_facts, linears
from edgewise.rotary import tables
from edgewise.tensors import Streamed, constant
from edgewise_exporters.decoder import Decoder, Family
from edgewise_exporters.decoder.architecture import Architecture, read_architecture
from edgewise_exporters.decoder.families import FAMILIES
from hub_configs import HUB

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 10_000.0,
}
GLM = {"n_routed_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "head_dim": 8}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}
ROPE_KEYS = [
    *("rope_type", "type", "rope_theta", "factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow"),
    *(
        "attention_factor",
        "original_max_position_embeddings",
        "short_factor",
        "full_attention",
        "partial_rotary_factor",
    ),
]
NORM = "model.norm.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"


def _checkpoint(config: Mapping[str, Any], tensors: Mapping[str, Streamed] | None = None) -> Checkpoint:
    return Checkpoint("test", Path(), config, {}, tensors or {}, {})


def _zeros(*shape: int, dtype: Any = np.float32) -> Streamed:
    return constant(np.zeros(shape, dtype))


def _tensors(**changes: Streamed | None) -> dict[str, Streamed]:
    """The tensors of LLAMA; a change of None leaves one out."""
    tensors: dict[str, Streamed | None] = {
        "model.embed_tokens.weight": _zeros(32, 16),
        "lm_head.weight": _zeros(32, 16),
        NORM: _zeros(16),
    }
    for i in range(2):
        path = f"model.layers.{i}"
        tensors |= {f"{path}.{norm}_layernorm.weight": _zeros(16) for norm in ("input", "post_attention")}
        tensors |= {f"{path}.self_attn.{part}_proj.weight": _zeros(16, 16) for part in "qo"}
        tensors |= {f"{path}.self_attn.{part}_proj.weight": _zeros(8, 16) for part in "kv"}
        tensors |= {f"{path}.mlp.{part}_proj.weight": _zeros(24, 16) for part in ("gate", "up")}
        tensors[f"{path}.mlp.down_proj.weight"] = _zeros(16, 24)
    return {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}


def _read(config: Mapping[str, Any]) -> Architecture:
    return read_architecture(_checkpoint(config), FAMILIES[config["model_type"]])


def _refusal(config: Mapping[str, Any], tensors: Mapping[str, Streamed] | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        Decoder().export(_checkpoint(config, tensors))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_whole_checkpoint_is_accepted() -> None:
    assert get_facts(Decoder().export(_checkpoint(LLAMA, _tensors()))).layers == 2


@pytest.mark.parametrize("name", HUB)
def test_a_published_configuration_means_what_transformers_makes_of_it(name: str) -> None:
    published = HUB[name]
    # transformers fills in defaults and rewrites older keys; the parity tests hold that spelling to its logits.
    config = transformers.AutoConfig.for_model(**deepcopy(published)).to_dict()
    assert _read(published) == _read(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_act": "relu2"}, ["'hidden_act' is 'relu2'", "expected one of gelu, gelu_pytorch_tanh, silu"]),
        ({"embedding_multiplier": 12.0}, ["key 'embedding_multiplier' (12.0)", "--ignore-config"]),
        ({"attention_bias": "yes"}, ["'attention_bias' is 'yes'", "true or false"]),
        ({"layer_types": ["full_attention"] * 2}, ["key 'layer_types'"]),
        ({"sliding_window": 8}, ["key 'sliding_window' (8)"]),
        ({"is_causal": False}, ["'is_causal' is False", "expected true"]),
        ({"quantization_config": {"quant_method": "aqlm"}}, ["quantized already", "'aqlm'", "known: awq, gptq"]),
        ({"quantization_config": {"quant_method": "mxfp4"}}, ["quantized already", "'mxfp4'"]),
        ({"quantization_config": {"weight_block_size": [128, 128]}}, ["quantized already"]),
        ({"rope_scaling": {"type": "su", "factor": 2.0}}, ["rope_scaling: 'type' is 'su'", "dynamic, linear, llama3"]),
        ({"rope_scaling": {"rope_type": "mrope"}}, ["rope_scaling: 'rope_type' is 'mrope'"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["rope_scaling: 'factor' is missing"]),
        ({"rope_scaling": {"rope_type": "linear", "factor": -1}}, ["'factor' is -1", "a number above 0"]),
        ({"rope_scaling": LLAMA3}, ["'high_freq_factor' is 1.0", "above 4"]),
        ({"rope_scaling": {"rope_type": "yarn"}, "rope_theta": 1}, ["'rope_theta' is 1", "above 1"]),
        ({"rope_theta": -1.0}, ["config.json: 'rope_theta' is -1.0"]),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "alpha": 3}}, ["the key 'alpha' (3)", "known: factor,"]),
        ({"rope_scaling": "linear"}, ["'rope_scaling' is 'linear'", "a table"]),
        ({"rope_scaling": {"factor": 2.0}, "rope_parameters": {"rope_theta": 1.0}}, ["both given"]),
        ({"rope_parameters": {"full_attention": {"factor": 2.0}}}, ["rope_parameters: the key 'full_attention'"]),
        ({"partial_rotary_factor": 0.5}, ["'partial_rotary_factor' is 0.5", "expected 1.0"]),
        ({"num_attention_heads": 0}, ["'num_attention_heads' is 0", "from 1 to"]),
        ({"num_attention_heads": "4"}, ["'num_attention_heads' is '4'", "a whole number"]),
        ({"num_attention_heads": True}, ["'num_attention_heads' is True"]),
        ({"num_attention_heads": 1.5}, ["'num_attention_heads' is 1.5"]),
        ({"num_key_value_heads": 3}, ["'num_key_value_heads' is 3", "a divisor of num_attention_heads, 4"]),
        ({"num_key_value_heads": 8}, ["'num_key_value_heads' is 8", "from 1 to 4"]),
        ({"head_dim": 3}, ["3 rotated dimensions of 3", "even number from 4"]),
        ({"hidden_size": 10**12}, ["'hidden_size' is 1000000000000", "from 1 to 2147483647"]),
        ({"max_position_embeddings": 10**9}, ["'max_position_embeddings' is 1000000000"]),
        ({"num_hidden_layers": [2]}, ["'num_hidden_layers' is [2]"]),
        ({"vocab_size": None}, ["'vocab_size' is missing"]),
        ({"rms_norm_eps": float("nan")}, ["'rms_norm_eps' is nan", "a number"]),
        ({"eos_token_id": 32}, ["'eos_token_id' is 32", "below vocab_size, 32"]),
        ({"eos_token_id": ["</s>"]}, ["'eos_token_id' is ['</s>']"]),
        ({"model_type": "lama"}, ["named 'lama'", "did you mean 'llama'?", "gemma2, gemma3_text", "plugin"]),
        ({"model_type": "deepseek_v3"}, ["no 'deepseek_v3' yet", "latent keys and values (MLA)"]),
        ({"model_type": None}, ["no model_type is named 'None'"]),
        ({"model_type": ["llama"]}, ["no model_type is named"]),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_understood_is_refused(change: dict[str, Any], words: list[str]) -> None:
    message = _refusal({**LLAMA, **change}, _tensors())
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("family", "change", "words"),
    [
        ("gemma2", {"hidden_act": "gelu"}, ["'hidden_act' is 'gelu'", "as hidden_activation says"]),
        ("gemma2", {"use_bidirectional_attention": True}, ["'use_bidirectional_attention' is True"]),
        ("gemma2", {"sliding_window": None}, ["'sliding_window' is missing"]),
        ("gemma2", {"layer_types": ["full_attention"]}, ["'layer_types' is ['full_attention']", "a list of 2"]),
        ("gemma2", {"layer_types": ["full_attention", "chunked_attention"]}, ["full_attention, sliding_attention"]),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, ["key 'attn_logit_softcapping' (50.0)"]),
        ("gemma3_text", {"rope_parameters": {"rope_theta": 1.0}}, ["rope_parameters: the key 'rope_theta'"]),
        ("dots1", {}, ["'n_routed_experts' is missing"]),
        ("glm4_moe", {**GLM, "n_group": 3}, ["'n_group' is 3", "a divisor of 8 experts"]),
        ("glm4_moe", {**GLM, "n_group": 8}, ["'n_group' is 8", "at most half"]),
        ("glm4_moe", {**GLM, "n_group": 4, "topk_group": 5}, ["'topk_group' is 5", "from 1 to 4"]),
        ("glm4_moe", {**GLM, "n_group": 4, "num_experts_per_tok": 3}, ["'topk_group' is None", "together have 3"]),
        ("glm4_moe", {**GLM, "routed_scaling_factor": 0}, ["'routed_scaling_factor' is 0", "above 0"]),
        ("glm4_moe", {**GLM, "scoring_func": "softmax"}, ["'scoring_func' is 'softmax'", "sigmoid"]),
        ("glm4_moe", {**GLM, "first_k_dense_replace": -1}, ["'first_k_dense_replace' is -1"]),
        ("glm4_moe", {**GLM, "num_nextn_predict_layers": "1"}, ["'num_nextn_predict_layers' is '1'"]),
        ("gpt_oss", {"num_local_experts": 4, "hidden_act": "gelu"}, ["'hidden_act' is 'gelu'", "'silu'"]),
        ("gpt_oss", {"num_local_experts": 4, "swiglu_limit": -7.0}, ["'swiglu_limit' is -7.0"]),
        ("gpt_oss", {"num_local_experts": 4, "experts_per_token": 2}, ["'experts_per_token' is 2", "expected 4"]),
        ("mixtral", {}, ["'num_experts' is missing"]),
        ("mixtral", {"num_local_experts": 4, "num_experts": 8}, ["'num_local_experts' is 4", "expected 8"]),
        ("mixtral", {"num_local_experts": "4"}, ["'num_local_experts' is '4'", "a whole number"]),
        ("mixtral", {"num_local_experts": 4, "norm_topk_prob": True}, ["key 'norm_topk_prob' (True)"]),
        ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 5}, ["'num_experts_per_tok' is 5", "1 to 4"]),
        ("olmoe", {"num_experts": 8, "clip_qkv": 8.0}, ["key 'clip_qkv' (8.0)", "--ignore-config"]),
        ("olmoe", {"num_experts": 8, "norm_topk_prob": 1}, ["'norm_topk_prob' is 1", "true or false"]),
        ("olmoe", {"num_experts": 8, "decoder_sparse_step": 2}, ["key 'decoder_sparse_step' (2)"]),
        ("qwen2_moe", {"num_experts": 8}, ["'moe_intermediate_size' is missing"]),
        ("qwen2_moe", {"num_experts": 8, "moe_intermediate_size": 8}, ["'shared_expert_intermediate_size' is missing"]),
        ("qwen3_moe", {"num_experts": 8, "mlp_only_layers": 1}, ["'mlp_only_layers' is 1", "a list of layers"]),
        ("qwen3_moe", {"num_experts": 8, "mlp_only_layers": [-1]}, ["'mlp_only_layers' is [-1]"]),
        ("qwen3_moe", {"num_experts": 8, "decoder_sparse_step": 0}, ["'decoder_sparse_step' is 0"]),
        (
            "qwen3_moe",
            {"num_experts": 8, "moe_intermediate_size": 8, "n_shared_experts": 1},
            ["key 'n_shared_experts' (1)"],
        ),
        ("phi3", {"rope_scaling": {"type": "linear", "factor": 2.0}}, ["'type' is 'linear'", "default, longrope, su"]),
        (
            "phi3",
            {"rope_scaling": {"type": "su", "short_factor": [1.0], "long_factor": [1.0]}},
            ["a list of 2 numbers"],
        ),
        ("qwen2", {"layer_types": ["sliding_attention"] * 2, "sliding_window": 0}, ["'sliding_window' is 0"]),
        ("qwen2", {"attention_bias": True}, ["key 'attention_bias' (True)"]),
        ("smollm3", {"no_rope_layers": [1]}, ["'no_rope_layers' is [1]", "a list of 2, each one of 0, 1"]),
    ],
)
def test_a_family_refuses_what_it_does_not_compute(family: str, change: dict[str, Any], words: list[str]) -> None:
    message = _refusal({**LLAMA, "model_type": family, **change})
    for word in words:
        assert word in message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["yarn", "longrope", "gelu", "", "8"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(ROPE_KEYS), inner, max_size=6),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(HUB)), st.data())
def test_whatever_a_configuration_holds_it_is_read_or_refused(name: str, data: st.DataObject) -> None:
    config = dict(HUB[name])
    keys = st.sampled_from([*sorted(set(config) - {"model_type"}), "rope_scaling", "rope_parameters"])
    config |= data.draw(st.dictionaries(keys, VALUES, max_size=3))
    try:
        facts = _read(config).facts
    except CheckpointError:
        return
    for rotary in facts.rotary.values():
        assert np.isfinite(tables(rotary, 32)).all()


def test_keys_that_change_nothing_are_accepted() -> None:
    harmless: dict[str, Any] = {
        "attention_dropout": 0.1,
        "initializer_range": 1.0,
        "some_switch": False,
        "other": None,
        "more": [],
    }
    assert _read({**LLAMA, **harmless}) == _read(LLAMA)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({QUERY: None}, f"tensor '{QUERY}' is absent; expected [16, 16] BFLOAT16, FLOAT16 or FLOAT"),
        ({QUERY: _zeros(16, 8)}, f"tensor '{QUERY}' is [16, 8] FLOAT; expected [16, 16] BFLOAT16"),
        ({NORM: _zeros(16, dtype=np.int8)}, f"tensor '{NORM}' is [16] INT8; expected [16] BFLOAT16"),
        ({"model.score.weight": _zeros(2, 16)}, "'model.score.weight', [2, 16] FLOAT, has no place in a 'llama'"),
        ({"a.bias": _zeros(1), "b.bias": _zeros(1)}, "'a.bias', [1] FLOAT, has no place in a 'llama' with this config"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_not_expected_is_refused(changes: dict[str, Streamed | None], expected: str) -> None:
    assert expected in _refusal(LLAMA, _tensors(**changes))


def test_rotary_buffers_of_older_libraries_are_ignored() -> None:
    Decoder().export(_checkpoint(LLAMA, _tensors(**{"model.layers.0.self_attn.rotary_emb.inv_freq": _zeros(2)})))


def test_a_tied_head_may_be_saved_twice_but_not_differ() -> None:
    tied = {**LLAMA, "tie_word_embeddings": True}
    assert get_facts(Decoder().export(_checkpoint(tied, _tensors()))).tied
    other = constant(np.eye(32, 16, dtype=np.float32))
    assert "'lm_head.weight' differs from" in _refusal(tied, _tensors(**{"lm_head.weight": other}))


def test_special_tokens_come_from_the_generation_config_first() -> None:
    config = {**LLAMA, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": -1}
    checkpoint = Checkpoint("test", Path(), config, {"eos_token_id": [3, 4], "bos_token_id": None}, {}, {})
    facts = read_architecture(checkpoint, FAMILIES["llama"]).facts
    assert (facts.bos, facts.eos, facts.pad) == (1, (3, 4), None)


def test_no_weight_is_read_before_it_is_asked_for() -> None:
    def read(start: int, stop: int) -> np.ndarray:
        raise AssertionError("a weight was read")

    tensors = {name: Streamed(tensor.dims, ir.DataType.BFLOAT16, read) for name, tensor in _tensors().items()}
    model = Decoder().export(_checkpoint(LLAMA, tensors))
    assert {linear.matrix.dims for linear in linears(model) if linear.role == "mlp.up"} == {(24, 16)}


def test_another_family_is_a_few_lines_of_a_plugin(tmp_path: Path) -> None:
    class Wide(Decoder):
        name = "wide"
        families = {"wide": Family("wide", scaled_embedding=True)}  # noqa: RUF012

    config = {**LLAMA, "model_type": "wide"}
    assert Wide().supports(_checkpoint(config))
    assert not Decoder().supports(_checkpoint(config))
    facts = get_facts(Wide().export(_checkpoint(config, _tensors())))
    assert facts.model_type == "wide"
