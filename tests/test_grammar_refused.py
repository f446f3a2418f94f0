"""tests: grammars that cannot be kept: each is refused with the reason, and none takes for ever."""

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import EdgewiseError, GenerationError, MissingExtra, OptionError
from edgewise.search.grammar import Grammar
from edgewise.text.tokenizer import Tokenizer
from edgewise.text.vocabulary import TokenizerVocabulary
from toy_tokenizers import metaspace, with_control


@pytest.fixture(scope="module")
def vocabulary(pycoder: Path) -> TokenizerVocabulary:
    return TokenizerVocabulary(Tokenizer.load(pycoder), 4096, eos=frozenset({0}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of json_schema, regex and lark; 0 were given"),
        ({"regex": "a", "lark": "b"}, "one of json_schema, regex and lark; 2 were given"),
        ({"json_schema": "{"}, "json_schema is not JSON: Expecting property name"),
        ({"json_schema": "[1]"}, r"json_schema must be a JSON object \(\{\}: any JSON\), got \[1\]"),
        ({"json_schema": {"type": {1, 2}}}, "json_schema cannot be read: Object of type set"),
        ({"json_schema": {"not": {}}}, 'Unimplemented keys: \\["not"\\]'),
        ({"json_schema": {"x-guidance": {"lenient": True}, "not": {}}}, 'Unimplemented keys: \\["not"\\]'),
        ({"json_schema": {"type": "obj"}}, "Invalid type: obj"),
        ({"json_schema": {"type": "string", "format": "shoe-size"}}, "Unknown format: shoe-size"),
        ({"json_schema": {"$ref": "http://example.com/s"}}, "does not fetch"),
        ({"json_schema": {"type": "integer", "minimum": 3, "maximum": 2}}, "minimum .3. is greater than maximum"),
        ({"json_schema": {"maxLenght": 3}}, "at #: the keyword 'maxLenght' is not known.*did you mean 'maxLength'"),
        (
            {"json_schema": {"properties": {"a": {"anyOf": [{"shape": 1}]}}}},
            "at #/properties/a/anyOf/0: the keyword 'shape' is not known.*'x-shape'",
        ),
        ({"regex": "a(?=b)"}, "look-around"),
        ({"regex": "("}, "regex cannot be used"),
        ({"regex": "\udcff"}, "regex is not valid Unicode at character 0"),
        ({"regex": "a" * (1 << 19)}, "regex has 524,288 characters; a grammar may have 262,144"),
        ({"lark": "start: foo"}, "unknown name"),
        ({"lark": 'start: start "a"'}, "no text is complete by it"),
        ({"lark": 'start: x\nx[temperature=0.5]: "a"'}, "a temperature belongs to the search"),
        ({"lark": 'start: %json {"shape": 1}'}, "the keyword 'shape' is not known"),
        ({"lark": 'start: %json {"x-guidance": {"lenient": true}, "not": {}}'}, "Unimplemented keys"),
        ({"lark": "start: " + "(" * 50_000 + '"a"' + ")" * 50_000}, "too deeply nested"),
        ({"json_schema": '{"items":' * 20_000 + "{}" + "}" * 20_000}, "json_schema is not JSON"),
        ({"json_schema": {"enum": [str(number) for number in range(100_000)]}}, "a grammar may have 262,144"),
        ({"json_schema": {"$ref": "#"}}, "json_schema cannot be used: no text is complete by it"),
    ],
)
def test_a_grammar_that_cannot_be_kept_is_refused_with_the_reason(
    vocabulary: TokenizerVocabulary, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        Grammar(**options).bind(vocabulary)
    assert "\n" not in str(caught.value)


def test_a_grammar_that_grows_too_large_on_its_way_ends_with_an_error(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar(regex="(a?){5000}a{5000}").bind(vocabulary)
    with pytest.raises(GenerationError, match="the grammar is too complex to go on") as caught:
        grammar.advance(grammar.start(()), vocabulary.encode("aa"))
    assert "\n" not in str(caught.value)


PIECES = {
    "regex": ["a", "[^b]", "(", ")", "{2,5}", "*", "+", "?", "|", "\\", "\\d", ".", "^", "$", "(?i)"],
    "lark": ["\n", "foo: ", '"a"', "/a+/", "|", "(", ")", "*", "~2..3", "INT", "foo", "<|user|>", "&", '[stop="a"]'],
}


@pytest.mark.parametrize("kind", PIECES)
def test_whatever_is_written_is_a_grammar_or_one_line(vocabulary: TokenizerVocabulary, kind: str) -> None:
    rng = random.Random(0)
    beginning = {"regex": "", "lark": "start: "}[kind]
    said = [
        refusal(vocabulary, kind, beginning + "".join(rng.choices(PIECES[kind], k=rng.randint(1, 8))))
        for _ in range(300)
    ]
    assert 20 < said.count(None) < 280
    assert not any("\n" in text for text in said if text)


def refusal(vocabulary: TokenizerVocabulary, kind: str, text: str) -> str | None:
    """Why a grammar is refused, at once or when it is first asked; None where it is not."""
    try:
        grammar = Grammar(**{kind: text}).bind(vocabulary)
        grammar.apply(grammar.start(()), np.zeros(vocabulary.size, np.float32))
    except EdgewiseError as error:
        return str(error)
    return None


def test_it_needs_a_tokenizer_that_can_be_followed_and_an_end(vocabulary: TokenizerVocabulary) -> None:
    with pytest.raises(OptionError, match="the model has no end-of-sequence token"):
        Grammar(regex="a").bind(TokenizerVocabulary(vocabulary.tokenizer, 4096))
    unknown = TokenizerVocabulary(with_control(metaspace), 30, eos=frozenset({1}))
    with pytest.raises(OptionError, match="the bundle's tokenizer cannot follow a grammar"):
        Grammar(regex="a").bind(unknown)
    with pytest.raises(GenerationError, match="the grammar has no vocabulary"):
        Grammar(regex="a").start(())


def test_without_llguidance_the_extra_is_named(
    vocabulary: TokenizerVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"llguidance is not installed; .* 'edgewise\[grammar\]'"):
        Grammar(regex="a").bind(vocabulary)
