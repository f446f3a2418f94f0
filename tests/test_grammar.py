"""tests: structured output: what a grammar lets through is what it describes, whatever the scores say."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from edgewise.bundle.read import Bundle
from edgewise.errors import EdgewiseError, GenerationError
from edgewise.runtime.runner import Runner
from edgewise.search.grammar import Grammar
from edgewise.search.sample import Sample
from edgewise.text.vocabulary import TokenizerVocabulary
from toy_tokenizers import byte_level, sentencepiece, with_control

PROMPT = "def settings():\n    return "
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b", None]}, "maxItems": 2},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
CALL = 'start: NAME "(" [INT ("," INT)*] ")"\nNAME: /[a-z]{1,8}/\nINT: /[0-9]{1,3}/'


@pytest.fixture(scope="module")
def runner(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def vocabulary(runner: Runner) -> TokenizerVocabulary:
    return TokenizerVocabulary(runner.tokenizer, 4096 + 50, eos=frozenset({0}))  # rows that no token has, too


def walk(grammar: Grammar, vocabulary: TokenizerVocabulary, seed: int, *, limit: int = 400) -> tuple[list[int], bool]:
    """Tokens by random scores that like to end, and whether they came to an end."""
    rng = np.random.default_rng(seed)
    state, tokens = grammar.start(()), list[int]()
    while len(tokens) < limit:
        scores = grammar.apply(state, rng.random(vocabulary.size, dtype=np.float32))
        scores[list(vocabulary.eos)] += rng.random()
        token = int(scores.argmax())
        assert np.isfinite(scores[token])
        if token in vocabulary.eos:
            return tokens, True
        tokens.append(token)
        state = grammar.advance(state, (token,))
    return tokens, False


def integers(low: int, high: int) -> st.SearchStrategy[dict[str, Any]]:
    bounds = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    return bounds.map(lambda pair: {"type": "integer", "minimum": pair[0], "maximum": pair[1]})


texts = st.tuples(st.integers(0, 3), st.integers(3, 6)).map(
    lambda pair: {"type": "string", "minLength": pair[0], "maxLength": pair[1]}
)
words = st.lists(st.sampled_from(["red", "\u00e9t\u00e9", 'a"b', 7, None, True, [1]]), min_size=1, max_size=3)
simple = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": ["null", "boolean"]}, {"type": "string", "pattern": "^[ab]{1,4}$"}]),
    integers(-200, 1000),
    texts,
    words.map(lambda values: {"enum": values}),
)


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    lists = inner.map(lambda schema: {"type": "array", "items": schema, "maxItems": 3})
    either = st.lists(inner, min_size=1, max_size=3).map(lambda schemas: {"anyOf": schemas})
    tables = st.dictionaries(st.sampled_from(["x", "y z", "\u00fc"]), inner, max_size=3).map(
        lambda named: {
            "type": "object",
            "properties": named,
            "required": sorted(named)[:2],
            "additionalProperties": False,
        }
    )
    return st.one_of(lists, either, tables)


@given(st.recursive(simple, nested, max_leaves=5), st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_what_comes_to_an_end_is_valid_json_of_its_schema(
    vocabulary: TokenizerVocabulary, schema: dict[str, Any], seed: int
) -> None:
    tokens, ended = walk(Grammar(json_schema=schema).bind(vocabulary), vocabulary, seed)
    if ended:
        jsonschema.validate(json.loads(vocabulary.decode(tokens)), schema)


def test_most_walks_come_to_an_end(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar(json_schema=PERSON).bind(vocabulary)
    assert sum(walk(grammar, vocabulary, seed)[1] for seed in range(40)) > 20


@pytest.mark.parametrize(
    "pattern", ["[a-z]{3,9}", r"(?i)select \w{1,5}|", "\u4f60?(\u597d|\U0001f600){1,3}", r"[0-9]+\.[0-9]{2}"]
)
def test_what_comes_to_an_end_matches_the_whole_of_a_regex(vocabulary: TokenizerVocabulary, pattern: str) -> None:
    grammar = Grammar(regex=pattern).bind(vocabulary)
    found = [walk(grammar, vocabulary, seed) for seed in range(30)]
    assert all(re.fullmatch(pattern, vocabulary.decode(tokens)) for tokens, ended in found if ended)
    assert any(ended for _, ended in found)


def test_a_lark_grammar_is_kept(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar(lark=CALL).bind(vocabulary)
    for seed in range(30):
        tokens, ended = walk(grammar, vocabulary, seed)
        assert not ended or re.fullmatch(r"[a-z]{1,8}\((\d{1,3}(,\d{1,3})*)?\)", vocabulary.decode(tokens))


@pytest.mark.parametrize("make", [byte_level, sentencepiece])
def test_tokenizers_spell_what_the_grammar_has_read(make: Callable[[], Library]) -> None:
    tokenizer = with_control(make)
    vocabulary = TokenizerVocabulary(tokenizer, 300, eos=frozenset({min(tokenizer.control)}))
    pattern = "[a-z][a-z ]{2,12}\n?[\u00e9\U0001f600]*"
    for seed in range(20):
        tokens, ended = walk(Grammar(regex=pattern).bind(vocabulary), vocabulary, seed)
        assert not ended or re.fullmatch(pattern, tokenizer.decode(tokens))
        assert not tokenizer.control.keys() & set(tokens)


@given(st.integers(0, 10_000), st.lists(st.integers(0, 6), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_state_is_a_value(vocabulary: TokenizerVocabulary, seed: int, jumps: list[int]) -> None:
    """Going on from any earlier state is going on from the beginning with the same tokens."""
    grammar, rng = Grammar(json_schema=PERSON).bind(vocabulary), np.random.default_rng(seed)
    states: list[tuple[tuple[int, ...], Any]] = [((), grammar.start(()))]
    for jump in jumps:
        tokens, state = states[max(0, len(states) - 1 - jump)]
        scores = grammar.apply(state, rng.random(vocabulary.size, dtype=np.float32))
        token = int(scores.argmax())
        states.append(((*tokens, token), grammar.advance(state, (token,))))
    for tokens, state in states:
        fresh = grammar.advance(grammar.start(()), tokens)
        zeros = np.zeros((2, vocabulary.size), np.float32)
        np.testing.assert_array_equal(grammar.apply(state, zeros[0]), grammar.apply(fresh, zeros[1]))


def test_nothing_may_follow_a_token_that_is_not_allowed(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar(regex="abc").bind(vocabulary)
    state = grammar.advance(grammar.start(()), vocabulary.encode("x"))
    assert not np.isfinite(grammar.apply(state, np.zeros(vocabulary.size, np.float32))).any()
    assert grammar.advance(state, vocabulary.encode("a")) is None


def test_it_may_end_where_the_text_may_and_must_where_nothing_follows(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar(regex="a{1,2}").bind(vocabulary)

    def allowed(text: str) -> list[int]:
        state = grammar.advance(grammar.start(()), vocabulary.encode(text)) if text else grammar.start(())
        return list(np.flatnonzero(np.isfinite(grammar.apply(state, np.zeros(vocabulary.size, np.float32)))))

    assert 0 not in allowed("")
    assert 0 in allowed("a")
    assert len(allowed("a")) == 2
    assert allowed("aa") == [0]


def test_an_end_that_is_spelled_in_a_string_is_no_end(vocabulary: TokenizerVocabulary) -> None:
    """An end-of-sequence token that the tokenizer does not mark as a control token has a text, which JSON may hold."""
    end = vocabulary.encode("class")[0]
    plain = TokenizerVocabulary(vocabulary.tokenizer, vocabulary.size, eos=frozenset({end}))
    grammar = Grammar(json_schema={"type": "string"}).bind(plain)
    inside = grammar.advance(grammar.start(()), plain.encode('"'))
    assert np.isneginf(grammar.apply(inside, np.zeros(plain.size, np.float32))[end])


@pytest.mark.parametrize("search", ["greedy", "sample"])
def test_the_model_s_text_is_valid_unless_it_is_cut(runner: Runner, search: str) -> None:
    given = {"name": "grammar", "json_schema": PERSON}
    reasons = set()
    for seed in range(12):
        hot = Sample(temperature=1.5) if search == "sample" else search
        result = runner.generate(PROMPT, search=hot, seed=seed, processors=[given], max_tokens=60 if seed % 3 else 6)
        reasons.add(result.finish_reason)
        if result.finish_reason == "eos":
            jsonschema.validate(json.loads(result.text), PERSON)
        else:
            assert len(result.tokens) == (60 if seed % 3 else 6)
    assert reasons == {"eos", "length"}


def test_any_json_is_asked_for_by_an_empty_schema(runner: Runner) -> None:
    for seed in range(6):
        result = runner.generate(
            PROMPT, search="sample", seed=seed, processors=[{"name": "grammar", "json_schema": "{}"}], max_tokens=80
        )
        assert result.finish_reason == "length" or json.loads(result.text) is not Ellipsis


def test_blanks_between_the_parts_of_json_have_a_bound(vocabulary: TokenizerVocabulary) -> None:
    grammar = Grammar(json_schema={}).bind(vocabulary)
    assert grammar.advance(grammar.start(()), vocabulary.encode('{\n    "a": 1,\n    "b": [\n        2\n    ]\n}'))
    assert grammar.advance(grammar.start(()), vocabulary.encode("{" + "\n" * 9)) is None


def test_a_control_token_is_never_part_of_the_text(runner: Runner) -> None:
    with pytest.raises(GenerationError, match="no token"):
        runner.generate(PROMPT, search="greedy", processors=[Grammar(lark='start: <|user|> "a"')])


def test_options_that_are_misspelt_name_the_processor(runner: Runner) -> None:
    with pytest.raises(EdgewiseError, match="processor 'grammar': no option is named 'regx'; did you mean 'regex'"):
        runner.generate(PROMPT, processors=[{"name": "grammar", "regx": "a"}])


def test_a_grammar_that_never_ends_is_cut_like_any_text(vocabulary: TokenizerVocabulary) -> None:
    """Lexemes are greedy: the first takes every letter, and the second never comes."""
    grammar = Grammar(lark="start: /a+/ /a+/").bind(vocabulary)
    tokens, ended = walk(grammar, vocabulary, 0, limit=10)
    assert not ended
    assert set(vocabulary.decode(tokens)) == {"a"}
