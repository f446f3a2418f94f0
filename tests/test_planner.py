"""tests: planner: its arithmetic against tables computed by hand for three public architectures, and as formulas."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny
from edgewise.graph import get_facts
from edgewise.planner.count import count
from edgewise.planner.weights import Weights
from edgewise.planner.work import Product, Work
from edgewise.prepare import prepare
from edgewise.recipe import Recipe, RecipeStep
from edgewise.sizes import sizes_of, total

INT4 = Recipe((RecipeStep("quantize", {"bits": 4, "block_size": 128, "symmetric": False}),))
FLOATS = Recipe()


@dataclass(frozen=True)
class Table3:
    """What was computed by hand, from the published configuration."""

    config: dict[str, Any]
    parameters: int  # of all matrices
    operations: int  # of their products, for a token
    cache: int  # bytes of keys and values of a token, in float32
    codes: int  # bytes of codes, float32 scales and packed zero points of all products in int4, blocks of 128
    packed: int  # the same as ONNX Runtime keeps it: codes, float32 scales and float32 sums


def _config(
    kind: str, hidden: int, layers: int, heads: int, kv: int, mlp: int, vocab: int, tied: bool
) -> dict[str, Any]:
    names = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
    return {
        "architectures": [names[kind]],
        "model_type": kind,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": mlp,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16",
    }


# Qwen2.5-0.5B, a layer: q and o 896 x 896, k and v 128 x 896, gate and up 4864 x 896, down 896 x 4864: 14,909,440
#   24 layers 357,826,560; the embedding, which is the lm_head, 151,936 x 896 = 136,134,656
#   int4: a row of 896 is 7 blocks of 64 + 4 bytes, 4 of zero points: 480; of 4,864: 38 blocks, 19: 2,603
#   a layer has 1,152 + 896 + 9,728 = 11,776 rows of 896, and 896 of 4,864: 7,984,768; lm_head 72,929,280
#   packed: 7 x 72 = 504 and 38 x 72 = 2,736: a layer 8,386,560, lm_head 76,575,744
# Llama-3.2-1B, a layer: q and o 2048 x 2048, k and v 512 x 2048, MLP 3 x 8192 x 2048: 60,817,408
#   16 layers 973,078,528; the embedding, which is the lm_head, 128,256 x 2048 = 262,668,288
#   int4: a row of 2,048 is 16 blocks, 8 of zero points: 1,096; of 8,192: 64 blocks, 32: 4,384
#   a layer has 3,072 + 2,048 + 16,384 = 21,504 rows of 2,048, and 2,048 of 8,192: 32,546,816; lm_head 140,568,576
#   packed: 1,152 and 4,608: a layer 34,209,792, lm_head 147,750,912
# Llama-3.1-8B, a layer: q and o 4096 x 4096, k and v 1024 x 4096, MLP 3 x 14336 x 4096: 218,103,808
#   32 layers 6,979,321,856; embedding and lm_head, each 128,256 x 4096 = 525,336,576
#   int4: a row of 4,096 is 32 blocks, 16 of zero points: 2,192; of 14,336: 112 blocks, 56: 7,672
#   a layer has 6,144 + 4,096 + 28,672 = 38,912 rows of 4,096, and 4,096 of 14,336: 116,719,616; lm_head 281,137,152
#   packed: 2,304 and 8,064: a layer 122,683,392, lm_head 295,501,824
BY_HAND = {
    "Qwen2.5-0.5B": Table3(
        _config("qwen2", 896, 24, 14, 2, 4864, 151_936, tied=True),
        parameters=493_961_216,
        operations=987_922_432,
        cache=24_576,  # 24 layers, keys and values, 2 heads of 64, 4 bytes
        codes=264_563_712,
        packed=277_853_184,
    ),
    "Llama-3.2-1B": Table3(
        _config("llama", 2048, 16, 32, 8, 8192, 128_256, tied=True),
        parameters=1_235_746_816,
        operations=2_471_493_632,
        cache=65_536,  # 16 x 2 x 8 x 64 x 4
        codes=661_317_632,
        packed=695_107_584,
    ),
    "Llama-3.1-8B": Table3(
        _config("llama", 4096, 32, 32, 8, 14_336, 128_256, tied=False),
        parameters=8_029_995_008,
        operations=15_009_316_864,  # without the embedding
        cache=262_144,  # 32 x 2 x 8 x 128 x 4
        codes=4_016_164_864,
        packed=4_221_370_368,
    ),
}


def hollow(folder: Path, config: dict[str, Any]) -> Path:
    """A checkpoint of that configuration whose weights were never written: a file with a hole."""
    hidden, mlp, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    width = hidden // config["num_attention_heads"]
    query, key = hidden, config["num_key_value_heads"] * width
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (vocab, hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, rows in (("q", query), ("k", key), ("v", key)):
            tensors[f"{layer}.self_attn.{name}_proj.weight"] = (rows, hidden)
            if config["model_type"] == "qwen2":
                tensors[f"{layer}.self_attn.{name}_proj.bias"] = (rows,)
        tensors[f"{layer}.self_attn.o_proj.weight"] = (hidden, query)
        for name, sizes in (("gate", (mlp, hidden)), ("up", (mlp, hidden)), ("down", (hidden, mlp))):
            tensors[f"{layer}.mlp.{name}_proj.weight"] = sizes
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}.{name}.weight"] = (hidden,)
    header, end = dict[str, Any](), 0
    for name, shape in tensors.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def counted(folder: Path, config: dict[str, Any], recipe: Recipe) -> Work:
    prepared = prepare(
        hollow(folder, config), target="cpu-x64", recipe=recipe, context=None, ignore_config=(), dry=True
    )
    return count(prepared.model)


@pytest.mark.parametrize("name", BY_HAND)
def test_a_public_model_is_counted_as_by_hand(name: str, tmp_path: Path) -> None:
    table = BY_HAND[name]
    work = counted(tmp_path, table.config, INT4)
    assert work.parameters == table.parameters
    assert work.operations == table.operations
    assert work.cache(1) == table.cache
    assert work.cache(4096) == 4096 * table.cache
    assert sum(product.stored for product in work.products) == table.codes
    assert sum(product.packed for product in work.products) == table.packed
    assert {str(product.weights) for product in work.products} == {"int4 block 128"}


@pytest.mark.parametrize("name", ["Qwen2.5-0.5B", "Llama-3.1-8B"])
def test_floats_take_four_bytes_and_a_tied_head_none_of_its_own(name: str, tmp_path: Path) -> None:
    table = BY_HAND[name]
    work = counted(tmp_path, table.config, FLOATS)
    assert work.stored - work.constants == 4 * table.parameters
    assert [t.tied for t in work.tables] == [table.config["tie_word_embeddings"]]


def test_only_the_last_tokens_of_a_prompt_are_computed_to_the_end(tmp_path: Path) -> None:
    work = counted(tmp_path, BY_HAND["Qwen2.5-0.5B"].config, INT4)
    scored = sorted(product.role for product in work.products if product.scored)
    assert scored == ["attention.o", "lm_head", "mlp.down", "mlp.gate", "mlp.up"]  # of the last layer, and the head


def test_of_experts_a_token_reads_those_that_it_is_given_to() -> None:
    experts = Product("expert", 10, 10, Weights("int8", block=10), count=8, active=2)
    assert experts.operations == 2 * 100 * 2
    assert experts.read(1, packed=False) == experts.stored // 4
    assert experts.read(64, packed=False) == experts.stored


@given(
    bits=st.sampled_from([2, 4, 8]),
    block=st.sampled_from([16, 32, 64, 128]),
    rows=st.integers(1, 99),
    columns=st.integers(1, 999),
    zeros=st.booleans(),
)
def test_bytes_on_the_disk_are_those_of_the_format_that_writes_them(
    bits: int, block: int, rows: int, columns: int, zeros: bool
) -> None:
    from edgewise.quantized import Format

    form = Format(bits, block, symmetric=not zeros)
    weights = Weights(f"int{bits}", block, zero_points=zeros)
    assert weights.stored(rows, columns) == form.stored_bytes(rows, columns)


@pytest.mark.parametrize("bits", [None, 4])
@pytest.mark.parametrize("family", ["gemma2", "phi3", "mixtral", "qwen2_moe", "smollm3"])
def test_nearly_all_parameters_of_every_kind_of_family_are_in_products(
    family: str, bits: int | None, home: Path
) -> None:
    checkpoint = tiny.checkpoint(family, home / family)
    steps = (RecipeStep("quantize", {"bits": 4, "block_size": 32}),) if bits else ()
    prepared = prepare(checkpoint, target="cpu-x64", recipe=Recipe(steps), context=None, ignore_config=(), dry=True)
    work, parameters = count(prepared.model), total(prepared.stored).parameters
    assert 0.99 * parameters < work.parameters <= parameters  # norms and biases are no products
    assert work.stored == total(sizes_of(prepared.model)).bytes
    mixtures = [mixture for mixture in get_facts(prepared.model).experts if mixture]
    experts = {(product.count, product.active) for product in work.products if product.count > 1}
    assert experts == {(mixture.count, mixture.active) for mixture in mixtures}
