"""tests: an encoder embeds and labels texts as torch does, whatever they are computed with."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from edgewise.bundle.read import Bundle
from edgewise.errors import BundleError, ContextOverflow, GenerationError, OptionError
from edgewise.facts import EncoderFacts
from edgewise.recipe import Recipe
from edgewise.runtime import texts as reading
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.labels import of_tokens, probabilities
from edgewise.runtime.runner import Runner
from edgewise.runtime.texts import batches
from edgewise.text.tokenizer import Pieces
from encoding import ENCODERS, TEXTS, packed

Change = Callable[[Path], None]


def changed(name: str, file: str, values: dict[str, Any], folder: Path) -> Path:
    """A checkpoint with other values in one of its files."""
    copy = Path(shutil.copytree(ENCODERS / name, folder / "checkpoint"))
    table = json.loads((copy / file).read_text("utf-8")) if (copy / file).exists() else {}
    (copy / file).write_text(json.dumps(table | values), "utf-8")
    return copy


def floats(source: Path, folder: Path) -> Encoder:
    folder.mkdir(exist_ok=True)
    return Encoder.open(packed(source, folder / "encoder.edge", recipe=Recipe()).path, threads=1)


@pytest.fixture(scope="module")
def encoder(home: Path) -> Iterator[Encoder]:
    with floats(ENCODERS / "sentence", home) as opened:
        yield opened


@pytest.fixture(scope="module")
def classifier(home: Path) -> Iterator[Encoder]:
    with floats(ENCODERS / "distilbert", home / "classifier") as opened:
        yield opened


@pytest.fixture(scope="module")
def tagger(home: Path) -> Iterator[Encoder]:
    config = {"id2label": {"0": "B-X", "1": "I-X", "2": "O"}}
    with floats(changed("tokens", "config.json", config, home / "tagger"), home / "tagger") as opened:
        yield opened


def hidden_states(name: str, text: str) -> NDArray[np.float32]:
    """What transformers computes for a text alone, `[tokens, width]`."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(ENCODERS / name)
    model = transformers.AutoModel.from_pretrained(ENCODERS / name, dtype=torch.float32).eval()
    with torch.no_grad():
        states = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    found: NDArray[np.float32] = states.numpy()
    return found


POOLED: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "pooling_mode_mean_tokens": lambda states: states.mean(axis=0),
    "pooling_mode_cls_token": lambda states: states[0],
    "pooling_mode_lasttoken": lambda states: states[-1],
}


@pytest.mark.parametrize("mode", POOLED)
def test_vectors_are_those_of_torch_with_every_pooling(mode: str, tmp_path: Path) -> None:
    modes = dict.fromkeys(POOLED, False) | {mode: True}
    source = changed("sentence", "1_Pooling/config.json", modes, tmp_path)
    with floats(source, tmp_path) as opened:
        found = opened.embed(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        expected = POOLED[mode](hidden_states("sentence", text))
        np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), rtol=0, atol=1e-5)


def test_vectors_keep_their_length_where_nothing_normalizes_them(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(ENCODERS / "sentence", tmp_path / "checkpoint"))
    modules = json.loads((copy / "modules.json").read_text("utf-8"))
    (copy / "modules.json").write_text(json.dumps(modules[:2]), "utf-8")
    with floats(copy, tmp_path) as opened:
        (vector,) = opened.embed(TEXTS[:1])
    np.testing.assert_allclose(vector, hidden_states("sentence", TEXTS[0]).mean(axis=0), rtol=0, atol=1e-5)


def test_a_text_has_the_same_vector_whatever_it_is_computed_with(encoder: Encoder) -> None:
    together = encoder.embed(TEXTS * 3)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, np.tile(alone, (3, 1)), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(encoder.embed(TEXTS[::-1]), encoder.embed(TEXTS)[::-1])


def test_no_text_is_no_vector(encoder: Encoder, classifier: Encoder) -> None:
    assert encoder.embed([]).shape == (0, encoder.dimensions) == (0, 32)
    assert classifier.classify([]) == []


def test_texts_of_similar_length_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "TOKENS", 40)
    lengths = [3, 20, 19, 4, 3, 18, 40, 90]
    found = list(batches(lengths))
    assert sorted(number for batch in found for number in batch) == list(range(len(lengths)))
    for batch in found:
        sizes = [lengths[number] for number in batch]
        assert len(batch) == 1 or max(sizes) * len(sizes) <= 40
        assert max(sizes) <= reading.SPREAD * min(sizes) + 1
    assert [7] in found


def test_a_text_that_is_too_long_loses_its_end_and_a_warning_says_so(
    encoder: Encoder, caplog: pytest.LogCaptureFixture
) -> None:
    long = " ".join(["cold"] * 60)
    with caplog.at_level(logging.WARNING):
        (cut,) = encoder.embed([long])
    assert caplog.messages == ["1 of 1 texts are longer than 48 tokens: their ends are not read"]
    (short,) = encoder.embed([" ".join(["cold"] * 46)])  # and two tokens around them
    np.testing.assert_array_equal(cut, short)
    with pytest.raises(ContextOverflow, match="text 2 of 2 has 62 tokens; the model reads 48"):
        encoder.embed(["hello", long], truncate=False)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_text_is_refused_by_its_number(empty: str, encoder: Encoder) -> None:
    with pytest.raises(GenerationError, match="text 2 of 3 is empty"):
        encoder.embed(["hello", empty, "there"])


def test_what_a_graph_cannot_compute_is_one_line(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    size = encoder.facts.vocab_size
    monkeypatch.setattr(encoder, "facts", replace(encoder.facts, vocab_size=5))
    with pytest.raises(GenerationError, match=r"text 1 of 1 has the token \d+; the model knows 5"):
        encoder.embed(["hello"])
    monkeypatch.setattr(encoder, "facts", replace(encoder.facts, vocab_size=size, pad=size))
    with pytest.raises(GenerationError, match=r"encoder\.edge: the graph does not run: [^\n]+$"):
        encoder.embed(["hello", "hello there"])


def test_what_no_context_could_hold_is_not_tokenized_whole(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LONGEST_TOKEN", 10)
    with pytest.raises(ContextOverflow, match="text 1 of 1 has 500 characters; the model reads 48 tokens"):
        encoder.embed(["hello " * 83 + "ab"], truncate=False)
    np.testing.assert_array_equal(*encoder.embed(["hello " * 83, "hello " * 60]))


@pytest.mark.filterwarnings("error")
def test_probabilities_of_far_scores_overflow_nowhere() -> None:
    facts = EncoderFacts("text-classification", "bert", 9, 9, 1, 64, "logits", labels=("a", "b"), scores="sigmoid")
    np.testing.assert_allclose(probabilities(np.array([-1000, 1000], np.float32), facts), [0, 1], rtol=0, atol=1e-7)


def test_one_text_is_no_list_of_texts(encoder: Encoder) -> None:
    with pytest.raises(OptionError, match=r"give a list .*\[text\]"):
        encoder.embed("hello")


def test_space_around_a_text_means_nothing_to_its_vector(tmp_path: Path) -> None:
    source = changed("sentence", "tokenizer.json", {"normalizer": None, "pre_tokenizer": None}, tmp_path)
    with floats(source, tmp_path) as opened:
        np.testing.assert_array_equal(opened.embed([" \nhello\t"]), opened.embed(["hello"]))


def test_prompts_of_the_model_come_before_a_text(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "i do ", "passage": "the "}, "default_prompt_name": "passage"}
    source = changed("sentence", "config_sentence_transformers.json", prompts, tmp_path)
    with floats(source, tmp_path) as opened:
        plain = opened.embed(["i do hello", "the hello", "hello"], prompt="")
        np.testing.assert_array_equal(opened.embed(["hello"], prompt="query"), plain[:1])
        np.testing.assert_array_equal(opened.embed(["hello"]), plain[1:2])
        with pytest.raises(OptionError, match=r"no prompt is named 'querry'; did you mean 'query'\?"):
            opened.embed(["hello"], prompt="querry")


def test_labels_are_those_of_torch(classifier: Encoder) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(ENCODERS / "distilbert")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(ENCODERS / "distilbert").eval()
    for text, found in zip(TEXTS, classifier.classify(TEXTS), strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).logits[0].softmax(dim=-1).tolist()
        by_label = dict(zip(("sad", "neutral", "glad"), expected, strict=True))
        assert {label.label: label.probability for label in found.labels} == pytest.approx(by_label, abs=1e-5)
        assert found.labels[0].label == max(by_label, key=lambda label: by_label[label])


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_labels_by_themselves_have_probabilities_of_their_own(
    problem: str, classifier: Encoder, tmp_path: Path
) -> None:
    source = changed("distilbert", "config.json", {"problem_type": problem}, tmp_path)
    with floats(source, tmp_path) as opened:
        (found,) = opened.probabilities(TEXTS[:1])
    (shares,) = classifier.probabilities(TEXTS[:1])
    logits = np.log(found / (1 - found)) if problem == "multi_label_classification" else found
    exponentials = np.exp(logits)
    np.testing.assert_allclose(exponentials / exponentials.sum(), shares, rtol=0, atol=1e-5)


def test_stretches_of_a_text_are_those_of_transformers(tagger: Encoder, home: Path) -> None:
    source = str(home / "tagger" / "checkpoint")
    pipeline: Any = transformers.pipeline
    reference = pipeline("token-classification", model=source, aggregation_strategy="first", device="cpu")
    some = 0
    for text, found in zip(TEXTS, tagger.classify(TEXTS), strict=True):
        expected = reference(text)
        spans = [(each["entity_group"], each["start"], each["end"]) for each in expected]
        assert [(span.label, span.start, span.end) for span in found.spans] == spans
        probabilities = [float(each["score"]) for each in expected]
        assert [span.probability for span in found.spans] == pytest.approx(probabilities, abs=1e-5)
        assert all(span.text == text[span.start : span.end] for span in (*found.spans, *found.tokens))
        some += len(spans)
    assert some > 3


def test_words_of_one_kind_are_one_stretch_until_another_begins() -> None:
    facts = EncoderFacts("token-classification", "bert", 9, 9, 1, 64, "logits", labels=("O", "B-PER", "I-PER", "LOC"))
    text = "Ada Lovelace Bob of York Town"
    words = [("Ada", "B-PER"), ("Love", "I-PER"), ("lace", "O"), ("Bob", "B-PER"), ("of", "O"), ("York", "LOC")]
    ends, offsets, scores = 0, [], []
    for word, label in [*words, ("Town", "LOC")]:
        start = text.index(word, ends)
        ends = start + len(word)
        offsets.append((start, ends))
        scores.append([0.8 if label == other else 0.1 for other in facts.labels])
    pieces = Pieces(tuple(range(7)), tuple(offsets), (False,) * 7, (0, 1, 1, 2, 3, 4, 5))
    found = of_tokens(np.array(scores, np.float32), pieces, text, facts)
    assert [(span.label, span.text) for span in found.spans] == [
        ("PER", "Ada Lovelace"),
        ("PER", "Bob"),
        ("LOC", "York Town"),
    ]
    assert [token.label for token in found.tokens] == ["B-PER", "I-PER", "O", "B-PER", "O", "LOC", "LOC"]


def test_what_a_model_is_not_for_is_refused_in_one_line(
    encoder: Encoder, classifier: Encoder, pycoder_bundle: Bundle, home: Path
) -> None:
    with pytest.raises(GenerationError, match="a model for feature-extraction: edgewise embed and"):
        encoder.classify(TEXTS)
    with pytest.raises(GenerationError, match="a model for text-classification: edgewise classify and"):
        classifier.embed(TEXTS)
    with pytest.raises(BundleError, match=r"feature-extraction \(bert\), which generates no text: edgewise embed and"):
        Runner.open(home / "encoder.edge")
    with pytest.raises(BundleError, match="gives neither vectors nor labels: edgewise run and"):
        Encoder.open(pycoder_bundle.path)


def test_a_closed_encoder_says_so(tmp_path: Path) -> None:
    opened = floats(ENCODERS / "sentence", tmp_path)
    opened.close()
    with pytest.raises(GenerationError, match=r"the encoder of .*encoder\.edge is closed"):
        opened.embed(TEXTS)


def test_a_device_embeds_without_what_builds_need(encoder: Encoder, home: Path) -> None:
    absent = ("onnx", "onnx_ir", "onnxscript", "ml_dtypes", "rich", "torch", "jinja2", "safetensors", "huggingface_hub")
    code = (
        "import sys, json\n"
        f"for name in {absent}: sys.modules[name] = None\n"
        "from edgewise import Encoder\n"
        "print(json.dumps(Encoder.open(sys.argv[1], threads=1).embed(sys.argv[2:]).tolist()))"
    )
    command = [sys.executable, "-c", code, str(home / "encoder.edge"), *TEXTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(json.loads(done.stdout), encoder.embed(TEXTS), rtol=0, atol=1e-6)
