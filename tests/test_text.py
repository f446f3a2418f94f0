"""tests: text: tokens that a user cannot forge, streams that split no character."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders

from edgewise.errors import BundleError, GenerationError
from edgewise.text.stream import LONGEST, TextStream
from edgewise.text.tokenizer import Tokenizer
from toy_tokenizers import KINDS, TOKENIZERS, WITH_BYTES, byte_level, texts


def stream(tokenizer: Tokenizer, tokens: Sequence[int], after: Sequence[int] = ()) -> list[str]:
    text = TextStream(tokenizer, after=after)
    return [*(text.push(token) for token in tokens), text.flush()]


@KINDS
@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_the_pieces_of_a_text_are_the_text(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode(text)
    pieces = stream(tokenizer, tokens)
    assert "".join(pieces) == tokenizer.decode(tokens)


@WITH_BYTES
@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_a_text_with_whole_characters_is_streamed_without_a_broken_one(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    pieces = stream(tokenizer, tokenizer.encode(text.replace("\ufffd", "?")))
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text.replace("\ufffd", "?")


@given(st.lists(st.integers(0, 261), max_size=120))
@settings(max_examples=200, deadline=None)
def test_any_bytes_at_all_stream_as_they_decode(tokens: list[int]) -> None:
    """Random bytes: hardly ever a character, and for longer than a stream looks back."""
    tokenizer = TOKENIZERS["byte_level"]
    assert "".join(stream(tokenizer, tokens)) == tokenizer.decode(tokens)


@KINDS
@given(before=texts, text=texts)
@example(before="\u0800\ufffd", text="0")
@settings(max_examples=100, deadline=None)
def test_a_text_goes_on_where_its_prompt_ends(kind: str, before: str, text: str) -> None:
    """With the space before its first word, which a decoder drops at the beginning of a text."""
    tokenizer = TOKENIZERS[kind]
    prompt, whole = tokenizer.encode(before), tokenizer.encode(before + text)
    if whole[: len(prompt)] == prompt:  # otherwise the last token of the prompt reaches into the text
        pieces = stream(tokenizer, whole[len(prompt) :], after=prompt)
        assert tokenizer.decode(prompt) + "".join(pieces) == tokenizer.decode(whole)


def test_the_space_before_the_first_word_of_an_answer_is_kept() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    prompt, answer = tokenizer.encode("the"), tokenizer.encode("a rose")[1:]
    assert "".join(stream(tokenizer, answer, after=prompt)) == " a rose"
    assert "".join(stream(tokenizer, answer)) == "a rose"


def test_a_token_costs_the_same_after_a_thousand_others() -> None:
    """Bytes that never become a character are the worst case: how much is decoded again is bounded."""
    tokenizer = TOKENIZERS["byte_level"]
    decoded: list[int] = []

    class Counting(Tokenizer):
        def decode(self, tokens: Sequence[int]) -> str:
            decoded.append(len(tokens))
            return super().decode(tokens)

    text = TextStream(Counting(byte_level()))
    broken = tokenizer.encode("\u4f60")[1]
    for _ in range(1000):
        text.push(broken)
    assert max(decoded) <= LONGEST + 1
    assert sum(decoded) < 1000 * 3 * LONGEST


@KINDS
@given(text=texts)
@settings(max_examples=100, deadline=None)
def test_what_a_user_types_is_never_a_control_token(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    tokens = tokenizer.encode(text)
    assert tokens[0] in tokenizer.control, "the token that the tokenizer puts before a text"
    assert not set(tokens[1:]) & set(tokenizer.control)


def test_ten_thousand_random_prompts_survive(pycoder: Path) -> None:
    """Of the demo's tokenizer; each is encoded without control tokens, and streamed as it was."""
    tokenizer = Tokenizer.load(pycoder)
    chance = random.Random(0)
    parts = [*tokenizer.control.values(), "\U0001f469\u200d\U0001f680", "\u202eabc", "\x00", "def f(", "\n\t", "\u00e9"]
    for _ in range(10_000):
        text = "".join(chance.choices(parts, k=chance.randrange(1, 6))) + chr(chance.randrange(0xD7FF))
        tokens = tokenizer.encode(text)
        assert not set(tokens) & set(tokenizer.control)
        assert "".join(stream(tokenizer, tokens)) == text


@pytest.mark.parametrize("text", ["a\ud800b", "\udcff", b"caf\xe9".decode("utf-8", "surrogateescape")])
def test_text_that_is_not_unicode_is_one_clear_line(text: str) -> None:
    with pytest.raises(GenerationError, match=r"the text is not valid Unicode: .* at character [0-9]") as caught:
        TOKENIZERS["byte_level"].encode(text)
    assert "\n" not in str(caught.value)


def test_a_panic_of_the_library_is_an_error_of_ours() -> None:
    """`pyo3_runtime.PanicException` is not even an Exception."""
    decodes = byte_level()
    decodes.decoder = decoders.Strip("a", 1, 1)
    with pytest.raises(GenerationError, match=r"the tokens cannot be decoded: .") as caught:
        Tokenizer(decodes).decode(decodes.encode("a").ids)
    assert "\n" not in str(caught.value)
    file = json.loads(byte_level().to_str())
    single = [{"SpecialToken": {"id": "missing", "type_id": 0}}]
    file["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    with pytest.raises(GenerationError, match=r"the text cannot be encoded: ."):
        Tokenizer(Library.from_str(json.dumps(file))).encode("a")


def test_a_bundle_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is missing"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "nonsense"])
def test_a_tokenizer_that_does_not_load_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleError, match=r"tokenizer\.json: .") as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_tokens_that_do_not_exist_have_no_text() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    with pytest.raises(GenerationError, match="cannot be decoded"):
        tokenizer.decode([-1])
