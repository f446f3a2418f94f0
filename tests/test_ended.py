"""tests: what searches that emit at their end ask: which rule ends a sequence, and when time is up."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from edgewise.bundle.read import Bundle
from edgewise.runtime.ended import Ended
from edgewise.runtime.runner import Runner
from edgewise.runtime.track import Track
from edgewise.search.protocol import Context, Extend, Flow, Request, Search, Sequence
from edgewise.search.stops import StopStrings, TimeLimit
from edgewise.text.stream import TextStream
from edgewise.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(pycoder_bundle: Bundle) -> Tokenizer:
    return Tokenizer.load(pycoder_bundle.path)


def test_each_continuation_ends_where_it_would_alone(tokenizer: Tokenizer) -> None:
    """Whatever was asked before: continuations share what they have in common, and nothing else."""
    rules = (StopStrings(("\n    ret", "x\U0001f600")),)
    ended = Ended(rules, lambda: TextStream(tokenizer), lambda: 0.0)
    for text in ("a = 1\n    return", "a = 1\n    rest", "a = 1\n    retry", "x\U0001f600", "x\U0001f601"):
        tokens = tokenizer.encode(text)
        for count in range(1, len(tokens) + 1):
            alone = Track(rules, TextStream(tokenizer), lambda: 0.0)
            alone.push(tokens[:count])
            assert ended(tokens[:count]) == alone.reason
    assert ended(tokenizer.encode("a = 1\n    return")) == "stop"
    assert ended(tokenizer.encode("x\U0001f600")) == "stop"


def test_without_rules_nothing_ends(tokenizer: Tokenizer) -> None:
    assert Ended((), lambda: TextStream(tokenizer), lambda: 9.0)((5, 6)) is None


def test_time_is_a_reason(tokenizer: Tokenizer) -> None:
    now = 0.0
    ended = Ended((TimeLimit(1.0),), lambda: TextStream(tokenizer), lambda: now)
    assert ended((5, 6)) is None
    now = 1.0
    assert ended((5, 6, 7)) == "time"


@dataclass(frozen=True)
class Patient(Search):
    """Goes on until time is up, and says nothing before."""

    name: ClassVar[str] = "patient"

    def flow(self, context: Context) -> Flow:
        yield Request(extend=(Extend(0, context.prompt, None),))
        while not (reason := context.ended((20, 21), ())):
            pass
        return (Sequence((20, 21), reason=reason),)


@pytest.fixture(scope="module")
def runner(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path, threads=1) as opened:
        yield opened


def test_what_was_found_in_time_is_given_whole(runner: Runner) -> None:
    result = runner.generate("def", search=Patient(), time_limit=0.02)
    assert (result.finish_reason, result.tokens) == ("time", (20, 21))
