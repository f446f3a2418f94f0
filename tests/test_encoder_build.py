"""tests: a build for texts: quantized as its recipe says, judged by its gate, and described in its card."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgewise.bundle.encoder_card import figures
from edgewise.bundle.read import Bundle, verify
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.encoders import encoder_facts
from edgewise.errors import (
    BundleError,
    CheckpointError,
    EdgewiseError,
    GateError,
    LoweringError,
    OptionError,
    RecipeError,
)
from edgewise.plan import plan_build
from edgewise.quality.encoders import evaluate_encoder
from edgewise.quality.gate import Gate
from edgewise.quality.likeness import of_labels, of_vectors, spearman
from edgewise.recipe import Recipe, RecipeStep
from edgewise.runtime.encoder import Encoder
from encoding import ENCODERS, TEXTS, packed, traced

INT4 = RecipeStep("quantize", {"bits": 4, "block_size": 32, "symmetric": False})
INT8 = RecipeStep("w8a8")


@pytest.fixture(scope="module")
def text(home: Path) -> CalibrationText:
    path = home / "texts.txt"
    path.write_text("\n".join([*TEXTS, "", "is it all hers", "she is cold there", "i do all day"]), "utf-8")
    return CalibrationText(path)


@pytest.fixture(scope="module")
def floats(home: Path) -> Bundle:
    return packed(ENCODERS / "sentence", home / "float.edge", recipe=Recipe())


@pytest.fixture(scope="module")
def integers(home: Path, text: CalibrationText) -> Bundle:
    """As it is built unless another recipe is asked for, with all checks."""
    return packed(ENCODERS / "sentence", home / "int8.edge", quality=text, load_check=True)


def operators(bundle: Bundle) -> set[str]:
    return {node.op_type for node in ir.load(bundle.graph("encoder")).graph}


def test_products_are_of_int8_unless_another_recipe_is_asked_for(integers: Bundle, floats: Bundle) -> None:
    verify(integers.path)
    assert [step["pass"] for step in integers.manifest.recipe] == ["w8a8"]
    assert {"MatMulIntegerToFloat", "GatherBlockQuantized"} <= operators(integers)
    assert not {"MatMulIntegerToFloat", "GatherBlockQuantized"} & operators(floats)
    assert integers.manifest.card["placement"]["nodes"]["encoder"].keys() == {"CPUExecutionProvider"}
    with Encoder.open(floats.path) as exact, Encoder.open(integers.path) as rounded:
        cosines = np.einsum("td,td->t", exact.embed(TEXTS), rounded.embed(TEXTS))
    assert 0.99 < cosines.min() < 0.99999


@pytest.mark.parametrize("step", [INT4, INT8])
def test_a_quantized_text_has_the_same_vector_whatever_it_is_computed_with(step: RecipeStep, tmp_path: Path) -> None:
    bundle = packed(ENCODERS / "sentence", tmp_path / "model.edge", recipe=Recipe((step,)))
    with Encoder.open(bundle.path, threads=1) as encoder:
        alone = np.concatenate([encoder.embed([each]) for each in TEXTS])
        np.testing.assert_allclose(encoder.embed(TEXTS), alone, rtol=0, atol=1e-5)


def test_the_card_says_what_it_gives_and_how_close_it_is(integers: Bundle) -> None:
    found = integers.manifest.card["quality"]
    assert found["texts"] == 9
    assert found["pairs"] == 36
    assert 0.99 < found["least_cosine"] <= found["mean_cosine"] < 1
    assert 0.9 < found["spearman"] <= 1
    page = (integers.path / "README.md").read_text("utf-8")
    assert "`edgewise embed . TEXT` runs it." in page
    assert "the mean of its tokens, of length 1" in page
    assert f"cosine to the float vectors {found['mean_cosine']:.5f} in the mean" in page
    assert not (integers.path / "genai_config.json").exists()


def test_the_same_build_gives_the_same_bytes(floats: Bundle, tmp_path: Path) -> None:
    again = packed(ENCODERS / "sentence", tmp_path / "float.edge", recipe=Recipe())
    assert again.manifest.files == floats.manifest.files


def test_a_gate_ends_a_build_that_is_not_close_enough(text: CalibrationText, tmp_path: Path) -> None:
    recipe = Recipe((INT4,), Gate(min_cosine=0.9999, min_spearman=0.5))
    with pytest.raises(GateError, match=r"^mean cosine is 0\.\d+, and 0\.9999 is the least that the gate allows$"):
        packed(ENCODERS / "sentence", tmp_path / "model.edge", recipe=recipe, quality=text)
    assert list(tmp_path.iterdir()) == []
    labels = Recipe((INT8,), Gate(min_top1=0.5, max_probability_difference=0.2))
    made = packed(ENCODERS / "distilbert", tmp_path / "model.edge", recipe=labels, quality=text)
    found = made.manifest.card["quality"]
    assert found["gate"] == {"min_top1": 0.5, "max_probability_difference": 0.2}
    assert found["probability_difference"] <= found["largest_difference"] <= 0.2


def test_limits_that_mean_nothing_for_a_model_are_refused(text: CalibrationText, tmp_path: Path) -> None:
    for name, gate in (("sentence", Gate(max_mean_kld=0.1)), ("tokens", Gate(min_cosine=0.9))):
        with pytest.raises(RecipeError, match=r"gate: m\w+ means nothing for .*-.*; it has m"):
            packed(ENCODERS / name, tmp_path / "model.edge", recipe=Recipe((), gate), quality=text)


def test_what_only_models_of_text_have_is_refused(text: CalibrationText, tmp_path: Path) -> None:
    output = tmp_path / "model.edge"
    for option in ({"calibration": text}, {"prefill": "int8"}, {"hidden_states": True}, {"measure": True}):
        with pytest.raises(OptionError, match="a model for feature-extraction has none; leave it out"):
            packed(ENCODERS / "sentence", output, recipe=Recipe((INT8,)), **option)
    with pytest.raises(LoweringError, match="lowered for CPUExecutionProvider only"):
        packed(ENCODERS / "sentence", output, target="cuda")
    with pytest.raises(RecipeError, match="this is for models that generate text"):
        packed(ENCODERS / "sentence", output, recipe=Recipe((RecipeStep("rotate"),)))
    assert not output.exists()


def test_a_context_of_fewer_tokens_is_what_a_text_is_cut_to(tmp_path: Path) -> None:
    bundle = packed(ENCODERS / "sentence", tmp_path / "model.edge", recipe=Recipe(), context=7)
    with Encoder.open(bundle.path) as encoder:
        np.testing.assert_array_equal(*encoder.embed(["the cold day in the north", "the cold day in the cold"]))


def test_a_plan_says_what_it_takes() -> None:
    with traced():
        plan = plan_build(ENCODERS / "sentence")
    assert plan.task == "feature-extraction"
    assert plan.cache == 0
    assert plan.speed is None
    assert plan.total.after < plan.total.before
    assert plan.run_memory > plan.total.after


def test_bundles_are_held_against_each_other_and_against_a_checkpoint(
    floats: Bundle, integers: Bundle, text: CalibrationText, pycoder: Path
) -> None:
    beside = evaluate_encoder(integers, text, floats.path)
    with traced():
        assert evaluate_encoder(integers, text, ENCODERS / "sentence") == beside
        with pytest.raises(OptionError, match="they have other tasks, or labels"):
            evaluate_encoder(integers, text, ENCODERS / "distilbert")
    with pytest.raises(OptionError, match=r"pycoder is a model for text-generation"):
        evaluate_encoder(integers, text, pycoder)


def test_a_damaged_graph_of_an_encoder_is_refused(floats: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(floats.path, tmp_path / "copy.edge"))
    graph = copy / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"model\.onnx does not match its hash"):
        Encoder.open(copy)


# How close it is.


def test_equal_values_share_their_rank() -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(0, 9, 50).astype(np.float32)
    right = (left + rng.normal(0, 3, 50)).astype(np.float32)
    below = np.array([[(side < x).sum() + ((side == x).sum() - 1) / 2 for x in side] for side in (left, right)])
    assert spearman(left, right) == pytest.approx(float(np.corrcoef(below)[0, 1]))
    assert spearman(left, -left) == pytest.approx(-1)


def test_vectors_that_are_turned_stay_alike_and_are_far_from_what_they_were() -> None:
    vectors = np.random.default_rng(1).normal(size=(20, 8)).astype(np.float32)
    turned = of_vectors(-vectors, vectors)
    assert turned.mean_cosine == pytest.approx(-1)
    assert turned.spearman == pytest.approx(1)
    assert turned.same_nearest == 1


def test_labels_agree_where_the_most_probable_is_the_same() -> None:
    ours = [np.array([0.6, 0.4], np.float32), np.array([[0.1, 0.9], [0.7, 0.3]], np.float32)]
    theirs = [np.array([0.9, 0.1], np.float32), np.array([[0.2, 0.8], [0.4, 0.6]], np.float32)]
    found = of_labels(ours, theirs, single=True)
    assert (found.texts, found.rows) == (2, 3)
    assert found.top1 == pytest.approx(2 / 3)
    assert found.probability_difference == pytest.approx((0.3 + 0.1 + 0.3) / 3)
    assert of_labels(ours, theirs, single=False).top1 == pytest.approx(2 / 3)


def test_a_regression_has_no_most_probable_label() -> None:
    found = of_labels([np.array([0.6], np.float32)], [np.array([2.1], np.float32)], single=None)
    assert found.top1 is None
    assert figures(dataclasses.asdict(found)) == [
        "scores differ by 1.5000 in the mean of the largest of each, by 1.5000 at most"
    ]
    assert Gate(min_top1=0.5).failures(found) == [
        "top-1 agreement is nothing that a regression has; take min_top1 out of the gate"
    ]


# What the files of a checkpoint say.


def stated(folder: Path, **files: object) -> Checkpoint:
    copy = Path(shutil.copytree(ENCODERS / "sentence", folder / "copy", dirs_exist_ok=True))
    for name, content in files.items():
        path = copy / {"pooling": "1_Pooling/config.json"}.get(name, f"{name}.json")
        path.write_text(json.dumps(content), "utf-8")
    return Checkpoint.open(copy)


MODULE = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules": [MODULE, {**MODULE, "type": "x.Dense"}]}, "the module 'Dense' is not done here"),
        ({"modules": {"0": MODULE}}, "expected a list of modules"),
        ({"pooling": {"pooling_mode_max_tokens": True}}, "it asks for pooling_mode_max_tokens; what is done is one of"),
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, "what is done is one of"),
        ({"pooling": {"pooling_mode_mean_tokens": True, "include_prompt": False}}, "include_prompt is false"),
        (
            {"modules": [MODULE, {**MODULE, "type": "x.Pooling", "path": "2_Pooling"}]},
            "2_Pooling/config.json is missing",
        ),
    ],
)
def test_what_sentence_transformers_asks_for_and_nobody_does_is_refused(
    files: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        encoder_facts(stated(tmp_path, **files), "feature-extraction", inputs=["input_ids"], output="last_hidden_state")


def test_a_text_is_as_long_as_the_least_limit_allows(tmp_path: Path) -> None:
    def context(**files: object) -> int:
        facts = encoder_facts(stated(tmp_path, **files), "feature-extraction", inputs=["input_ids"], output="x")
        return facts.context_length

    config = json.loads((ENCODERS / "sentence" / "config.json").read_text("utf-8"))
    assert context() == 48
    assert context(sentence_bert_config={"max_seq_length": 500}) == 64
    assert context(**{"sentence_bert_config": {}, "sentence_xlm-roberta_config": {"max_seq_length": 20}}) == 20
    (tmp_path / "copy" / "sentence_xlm-roberta_config.json").unlink()
    assert context(sentence_bert_config={}, tokenizer_config={"model_max_length": 10**30}) == 64
    roberta = config | {"model_type": "roberta", "pad_token_id": 1}
    assert context(sentence_bert_config={}, config=roberta) == 62
    esm = roberta | {"model_type": "esm"}
    assert context(sentence_bert_config={}, config=esm) == 62
    assert context(sentence_bert_config={}, config=esm | {"position_embedding_type": "rotary"}) == 64
    unlimited = {key: value for key, value in config.items() if key != "max_position_embeddings"}
    with pytest.raises(CheckpointError, match="nothing says how long a text may be"):
        context(sentence_bert_config={}, tokenizer_config={}, config=unlimited)


@pytest.mark.parametrize(
    ("values", "text", "tokens"),
    [
        ({}, "softmax", "softmax"),
        ({"id2label": {"0": "a"}}, "sigmoid", "softmax"),
        ({"id2label": {"0": "a"}, "problem_type": "single_label_classification"}, "sigmoid", "softmax"),
        ({"id2label": {"0": "a"}, "problem_type": "regression"}, "none", "softmax"),
        ({"problem_type": "single_label_classification"}, "softmax", "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid", "softmax"),
        ({"problem_type": "regression"}, "none", "softmax"),
        ({"function_to_apply": "sigmoid"}, "softmax", "softmax"),
    ],
)
def test_probabilities_are_made_as_pipelines_make_them(
    values: dict[str, object], text: str, tokens: str, tmp_path: Path
) -> None:
    config = json.loads((ENCODERS / "distilbert" / "config.json").read_text("utf-8"))
    checkpoint = stated(tmp_path, config=config | values)
    of_text = encoder_facts(checkpoint, "text-classification", inputs=["input_ids"], output="logits")
    of_tokens = encoder_facts(checkpoint, "token-classification", inputs=["input_ids"], output="logits")
    assert (of_text.scores, of_tokens.scores) == (text, tokens)


def test_labels_are_in_the_order_of_their_numbers_or_refused(tmp_path: Path) -> None:
    config = json.loads((ENCODERS / "distilbert" / "config.json").read_text("utf-8"))

    def labels(**values: object) -> tuple[str, ...]:
        checkpoint = stated(tmp_path, config=config | values)
        return encoder_facts(checkpoint, "text-classification", inputs=["input_ids"], output="logits").labels

    assert labels(id2label={"10": "k", **{str(number): chr(97 + number) for number in range(10)}}) == tuple(
        "abcdefghijk"
    )
    with pytest.raises(CheckpointError, match="id2label has the numbers 0, 2, which are not 0, 1, 2"):
        labels(id2label={"0": "a", "2": "b"})
    with pytest.raises(CheckpointError, match="problem_type is 'ranking'; known: multi_label"):
        labels(problem_type="ranking")
    assert issubclass(CheckpointError, EdgewiseError)
