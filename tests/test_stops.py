"""tests: stop rules, and the text that they let through: nothing is handed out that a rule could take back."""

import math
from collections.abc import Iterable
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models

from edgewise.errors import GenerationError, OptionError
from edgewise.options import parse, record
from edgewise.registry import registry
from edgewise.runtime.track import Track
from edgewise.search.protocol import LogProb
from edgewise.search.stops import (
    GO_ON,
    STOP,
    Eos,
    Floor,
    Loop,
    MaxTokens,
    Progress,
    StopRule,
    StopStrings,
    TimeLimit,
    Verdict,
)
from edgewise.text.stream import TextStream
from edgewise.text.tokenizer import Tokenizer

EOS = 0
WORDS = ("<eos>", *"ab\n", "ab", "ba", "aab", "\xe2", "\x82", "\xac")  # the last three: the bytes of a euro sign


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Each token is its text; the last three are parts of a character."""
    vocabulary = {word: number for number, word in enumerate(WORDS[:7])}
    vocabulary |= {f"<0x{ord(word):02X}>": number for number, word in enumerate(WORDS[7:], start=7)}
    library = Library(models.BPE(vocab=vocabulary, merges=[]))
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return Tokenizer(library)


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def track(tokenizer: Tokenizer, *rules: StopRule, clock: Clock | None = None) -> Track:
    return Track(rules, TextStream(tokenizer), clock or Clock())


def ids(words: Iterable[str]) -> list[int]:
    return [WORDS.index(word) for word in words]


def test_eos_ends_a_sequence_and_is_not_part_of_it(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, Eos(frozenset({EOS, 9})))
    assert sequence.push(ids(["a", "b"])).text == "ab"
    piece = sequence.push([EOS, *ids(["a"])])
    assert (sequence.reason, sequence.tokens, sequence.text) == ("eos", ids(["a", "b"]), "ab")
    assert (piece.tokens, piece.text) == ((), "")


def test_a_stop_string_ends_the_text_where_it_begins(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, StopStrings(("ba",)))
    sequence.push(ids(["a", "ab", "ab", "b"]))
    assert (sequence.reason, sequence.text) == ("stop", "aa")
    assert sequence.tokens == ids(["a", "ab", "ab"]), "the token that completes it is the last"


def test_text_that_may_begin_a_stop_string_is_held_back(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, StopStrings(("ab\n", "aab\nb")))
    pieces = [sequence.push([token]).text for token in ids(["b", "a", "a", "b", "b", "ab", "\n"])]
    assert pieces == ["b", "", "", "", "aabb", "", ""]
    assert (sequence.reason, sequence.text) == ("stop", "baabb")


def test_text_that_was_held_back_comes_when_the_sequence_ends_otherwise(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, StopStrings(("ab\n",)), MaxTokens(3))
    assert [sequence.push([token]).text for token in ids(["b", "a", "b"])] == ["b", "", "ab"]
    assert sequence.reason == "length"
    unfinished = track(tokenizer, StopStrings(("ab\n",)))
    unfinished.push(ids(["a"]))
    assert unfinished.finish("eos").text == "a"


def test_an_unfinished_character_is_shown_at_the_end_but_not_before_a_stop_string(tokenizer: Tokenizer) -> None:
    cut = track(tokenizer, MaxTokens(3))
    cut.push(ids(["a", "\xe2", "\x82"]))
    assert cut.text == tokenizer.decode(cut.tokens) == "a\ufffd\ufffd"
    library = Library(models.BPE(vocab={"a": 0, "b\u00e2": 1}, merges=[]))  # the second: b, and a byte of a euro sign
    library.decoder = decoders.ByteLevel()
    stopped = track(Tokenizer(library), StopStrings(("b",)))
    stopped.push([0, 1])
    assert (stopped.reason, stopped.text) == ("stop", "a")


def test_length_counts_new_tokens_and_keeps_the_last(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, MaxTokens(2))
    assert sequence.push(ids(["a", "b", "a"])).tokens == tuple(ids(["a", "b"]))
    assert (sequence.reason, sequence.text) == ("length", "ab")


def test_time_is_up_at_the_first_token_after_it(tokenizer: Tokenizer) -> None:
    clock = Clock()
    sequence = track(tokenizer, TimeLimit(2.0), clock=clock)
    for seconds in (0.5, 1.9, 2.0):
        assert sequence.reason is None
        clock.seconds = seconds
        sequence.push(ids(["a"]))
    assert (sequence.reason, sequence.text) == ("time", "aaa")


def test_a_sequence_ends_before_a_token_that_the_model_held_improbable(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, Floor(0.2), StopStrings(("zz",)))
    piece = sequence.push(
        ids(["a", "b", "ab", "a"]),
        [
            LogProb(token, math.log(p))
            for token, p in zip(ids(["a", "b", "ab", "a"]), (0.9, 0.2, 0.19, 1.0), strict=True)
        ],
    )
    assert (sequence.reason, sequence.tokens, piece.text) == ("floor", ids(["a", "b"]), "ab")
    assert len(sequence.logprobs) == 2


def test_what_a_dropped_token_began_or_completed_is_not_in_the_text(tokenizer: Tokenizer) -> None:
    for dropped in ("\x82", "\xac"):
        words = ["a", "\xe2", "\x82", "\xac"]
        words = words[: words.index(dropped) + 1]
        sequence = track(tokenizer, Floor(0.5))
        sequence.push(ids(words), [*(LogProb(0, 0.0) for _ in words[1:]), LogProb(0, -9.0)])
        assert sequence.tokens == ids(words[:-1])
        assert sequence.text == tokenizer.decode(sequence.tokens)


def test_a_rule_that_needs_log_probabilities_is_not_left_without(tokenizer: Tokenizer) -> None:
    with pytest.raises(GenerationError, match="stop rule 'floor' needs log-probabilities, and the search gives none"):
        track(tokenizer, Floor(0.5)).push(ids(["a"]))


def test_a_loop_ends_when_its_cycle_was_gone_round_often_enough(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, Loop(period=3, count=3, length=9))
    sequence.push(ids([*"ba", *"aab" * 5]))
    assert (sequence.reason, sequence.text) == ("loop", "ba" + "aab" * 3)
    longer = track(tokenizer, Loop(period=2, count=3, length=9), MaxTokens(20))
    longer.push(ids("aab" * 7))
    assert longer.reason == "length", "a cycle of three is not looked for"


cycles = st.tuples(st.integers(1, 4), st.integers(2, 4), st.integers(1, 12))


@given(st.lists(st.integers(0, 2), max_size=40), cycles)
def test_a_loop_is_found_where_it_is_and_nowhere_else(tokens: list[int], cycle: tuple[int, int, int]) -> None:
    period, count, length = cycle

    def repeats(p: int) -> bool:
        span = max(p * count, length)
        tail = tokens[-span:]
        return len(tail) == span and all(tail[i] == tail[i % p] for i in range(span))

    rule = Loop(period=period, count=count, length=length)
    for _ in tokens[:]:
        expected = any(repeats(p) for p in range(1, period + 1) if p * count <= len(tokens))
        assert rule.check(Progress(tokens, "", "", 0.0)).stop == expected
        tokens.pop()


def test_of_several_rules_the_first_gives_the_reason_and_all_cut(tokenizer: Tokenizer) -> None:
    together = track(tokenizer, Eos(frozenset({EOS})), StopStrings(("b",)), MaxTokens(2))
    together.push(ids(["a", "ab"]))
    assert (together.reason, together.text) == ("stop", "aa")
    last = track(tokenizer, Eos(frozenset({EOS})), MaxTokens(2))
    last.push([*ids(["a"]), EOS])
    assert (last.reason, last.tokens) == ("eos", ids(["a"]))
    length_first = track(tokenizer, MaxTokens(2), StopStrings(("b",)))
    length_first.push(ids(["a", "ab"]))
    assert (length_first.reason, length_first.text) == ("length", "aa")


def test_nothing_is_taken_after_the_end(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, MaxTokens(1))
    sequence.push(ids(["a"]))
    assert sequence.push(ids(["b"])).tokens == ()
    assert sequence.finish("eos").text == ""
    assert (sequence.reason, sequence.text) == ("length", "a")


class Vowels:
    """A rule of somebody else's."""

    name: ClassVar[str] = "vowels"

    def check(self, progress: Progress) -> Verdict:
        return STOP if progress.tail.count("a") == 2 else GO_ON


def test_a_rule_of_somebody_else_s_works_like_ours(tokenizer: Tokenizer) -> None:
    sequence = track(tokenizer, StopStrings(("aaaa",)), Vowels())
    sequence.push(ids(["b", "a", "a", "a"]))
    assert (sequence.reason, sequence.text) == ("vowels", "baa")


texts = st.lists(st.sampled_from(WORDS[1:7]), max_size=30)


@given(texts, st.lists(st.text("ab\n", min_size=1, max_size=5), min_size=1, max_size=3))
@settings(max_examples=500, deadline=None)
def test_the_pieces_are_the_text_before_the_first_stop_string(
    tokenizer: Tokenizer, words: list[str], strings: list[str]
) -> None:
    sequence = track(tokenizer, StopStrings(tuple(strings)))
    pieces = [sequence.push([token]).text for token in ids(words)] + [sequence.finish("eos").text]
    text = "".join(words)
    tokens = 0
    while tokens < len(words) and not any(string in "".join(words[:tokens]) for string in strings):
        tokens += 1
    seen = "".join(words[:tokens])  # up to the token that completes a stop string
    places = [seen.find(string) for string in strings if string in seen]
    assert "".join(pieces) == sequence.text == (seen[: min(places)] if places else text)
    assert sequence.reason == ("stop" if places else "eos")
    assert sequence.tokens == ids(words[:tokens])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("length", {"count": 0}, "count is 0; it must be 1 or more"),
        ("time", {"seconds": 0.0}, "seconds is 0.0"),
        ("time", {"seconds": float("nan")}, "seconds is nan"),
        ("stop", {"strings": ["a", ""]}, "a stop string is empty"),
        ("stop", {}, "strings must be given"),
        ("floor", {"probability": 0.0}, "probability is 0.0; it must be above 0 and at most 1"),
        ("loop", {"period": 0}, "period is 0; it must be 1 or more"),
        ("loop", {"count": 1}, "count is 1; it must be 2 or more"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(registry().stop_rules.get(name), options, what=name)


def test_the_tokens_of_a_rule_are_a_set_written_as_a_list() -> None:
    rule = parse(Eos, {"tokens": [7, 5, 7]}, what="eos")
    assert rule == Eos(frozenset({5, 7}))
    assert record(rule) == {"tokens": [5, 7]}
    with pytest.raises(OptionError, match=r"eos: tokens\[1\]: expected a whole number, got 'x'"):
        parse(Eos, {"tokens": [5, "x"]}, what="eos")


def test_every_rule_is_found_by_the_reason_that_it_gives() -> None:
    for name in registry().stop_rules.names():
        assert registry().stop_rules.get(name).name == name
