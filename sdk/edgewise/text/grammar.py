"""sdk, text: grammars over the tokens of a bundle, by llguidance (github.com/guidance-ai/llguidance)."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from edgewise.errors import OptionError
from edgewise.text.schema import check_keywords
from edgewise.text.tokenizer import Tokenizer
from edgewise.text.vocabulary import TokenizerVocabulary

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer
    from llguidance._lib import JsonCompileOptions

LONGEST = 1 << 18  # characters of a grammar
BLANK = r"\x20|\n[\x20\t]{0,40}"  # between the parts of JSON; without a bound, a weak model never leaves it
WARM = re.compile(r"^[ \t]*\w+\s*\[[^\]\n]*\btemperature\b", re.MULTILINE)  # a Lark rule that asks for one
UNFORCED = '\n%llguidance {"no_forcing": true}\n'  # it would look for ever for the end of a text that has none
EMBEDDED = re.compile(r"%json\s*(?=\{)")  # a JSON schema in a Lark grammar

_DEFAULTS: "JsonCompileOptions" = {"whitespace_pattern": BLANK}
_STRICT: "JsonCompileOptions" = {"lenient": False}  # what is not done is an error, whatever the schema itself says

_tokenizers: "WeakKeyDictionary[Tokenizer, dict[tuple[int, frozenset[int]], LLTokenizer]]" = WeakKeyDictionary()


def compile_json_schema(schema: str | Mapping[str, Any], vocabulary: TokenizerVocabulary) -> "LLMatcher":
    """What follows a JSON schema from its beginning. Raises OptionError for what cannot be kept of it."""
    from llguidance import LLMatcher

    if isinstance(schema, str):
        _check_text(schema, "json_schema")
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise OptionError(f"json_schema is not JSON: {one_line(error)}") from error
    if not isinstance(schema, Mapping):
        raise OptionError(f"json_schema must be a JSON object ({{}}: any JSON), got {schema!r:.60}")
    try:
        text = json.dumps(schema)
        _check_text(text, "json_schema")
        source = LLMatcher.grammar_from_json_schema(text, _DEFAULTS, _STRICT)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"json_schema cannot be read: {one_line(error)}") from error
    matcher = _matcher(source, vocabulary, "json_schema")
    check_keywords(schema)
    return matcher


def compile_regex(regex: str, vocabulary: TokenizerVocabulary) -> "LLMatcher":
    """What a regular expression (of Rust's syntax: no look-around) matches as a whole. Raises OptionError."""
    from llguidance import LLMatcher

    _check_text(regex, "regex")
    return _matcher(LLMatcher.grammar_from_regex(regex), vocabulary, "regex")


def compile_lark(lark: str, vocabulary: TokenizerVocabulary) -> "LLMatcher":
    """What a grammar in llguidance's variant of Lark describes. Raises OptionError."""
    from llguidance import LLMatcher

    _check_text(lark, "lark")
    if WARM.search(lark):
        raise OptionError("lark: a temperature belongs to the search, not to a rule of the grammar")
    matcher = _matcher(LLMatcher.grammar_from_lark(lark + UNFORCED), vocabulary, "lark")
    for found in EMBEDDED.finditer(lark):
        with suppress(ValueError):  # in a comment, or in a text
            check_keywords(json.JSONDecoder().raw_decode(lark, found.end())[0])
    return matcher


def _matcher(source: str, vocabulary: TokenizerVocabulary, what: str) -> "LLMatcher":
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_lexer_states=50_000, verbose_errors=False)  # some 2 kB each
    matcher = LLMatcher(_tokenizer(vocabulary), source, log_level=0, limits=limits)
    if matcher.is_error():
        raise OptionError(f"{what} cannot be used: {one_line(matcher.get_error())}")
    if warnings := matcher.get_grammar_warnings():
        raise OptionError(f"{what} cannot be used: {one_line(warnings[0])}")
    matcher.compute_bitmask()
    if matcher.is_stopped() and not matcher.is_accepting():
        raise OptionError(f"{what} cannot be used: no text is complete by it ({one_line(matcher.get_error())})")
    return matcher


def _tokenizer(vocabulary: TokenizerVocabulary) -> "LLTokenizer":
    """The tokenizer as llguidance knows it: made once (a second, for a large one)."""
    from llguidance import LLTokenizer

    made = _tokenizers.setdefault(vocabulary.tokenizer, {})
    key = (vocabulary.size, vocabulary.eos)
    if key not in made:
        try:
            made[key] = LLTokenizer(vocabulary.tokenizer.serialize(), vocabulary.size, sorted(vocabulary.eos))
        except ValueError as error:
            raise OptionError(f"the bundle's tokenizer cannot follow a grammar: {one_line(error)}") from error
    return made[key]


def _check_text(text: str, what: str) -> None:
    if len(text) > LONGEST:
        raise OptionError(f"{what} has {len(text):,} characters; a grammar may have {LONGEST:,}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise OptionError(f"{what} is not valid Unicode at character {error.start}") from error


def one_line(text: object) -> str:
    """What llguidance says, without what it appends for its developers."""
    return " ".join(str(text).partition("<non-verbose/>")[0].partition("\n<state>")[0].split())[:300]
