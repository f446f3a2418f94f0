"""tests: the loop between a search and its rows, with searches that no built-in needs."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from edgewise.errors import GenerationError
from edgewise.runtime.model import Model
from edgewise.runtime.rows import Rows
from edgewise.runtime.runner import Runner
from edgewise.runtime.session import Session
from edgewise.search.protocol import Context, Emit, Extend, Flow, Reply, Request, Search
from edgewise.search.protocol import Sequence as Found
from toy import toy
from toy_tokenizers import sentencepiece, with_control


@dataclass(frozen=True)
class Exchange(Search):
    """Two rows that go on from each other, then one that goes back; each reply is compared with a fresh session."""

    name: ClassVar[str] = "exchange"
    model: Model

    def flow(self, context: Context) -> Flow:
        yield Request(extend=(Extend(0, (1, 2, 3), None), Extend(1, (4, 5), None)))
        reply = yield Request(extend=(Extend(0, (6,), 1), Extend(1, (7,), 0)))
        self.check(reply, (4, 5, 6), (1, 2, 3, 7))
        reply = yield Request(extend=(Extend(1, (8, 9), 1, length=2, scores=2), Extend(2, (10,), 1, length=1)))
        self.check(reply, (1, 2, 8, 9), (1, 10))
        assert len(reply.logits[0]) == 2
        reply = yield Request(release=((0, 0), (0, 2)), extend=(Extend(3, (11,), None),))
        self.check(reply, (11,))
        reply = yield Request(emit=(Emit(1, (50,)), Emit(0, (51, 52))), extend=(Extend(1, (12,), 1),))
        self.check(reply, (1, 2, 8, 9, 12))
        return (Found((51, 52, 53)), Found((50,)))

    def check(self, reply: Reply, *rows: tuple[int, ...]) -> None:
        for scores, tokens in zip(reply.logits, rows, strict=True):
            fresh = Session(self.model, capacity=16).prefill(tokens, scores=len(scores))
            np.testing.assert_allclose(scores, fresh, atol=1e-3)  # scores of the toy reach 100


@pytest.fixture
def toy_runner(tmp_path: Path, float_runner: Runner) -> Runner:
    return Runner(toy(tmp_path), float_runner.tokenizer)


def test_rows_go_on_from_each_other_go_back_and_are_released(toy_runner: Runner) -> None:
    stream = toy_runner.stream([1], search=Exchange(toy_runner.model))
    pieces = [(piece.sequence, piece.tokens) for piece in stream if piece.tokens]
    assert pieces == [(1, (50,)), (0, (51, 52)), (0, (53,))]
    assert stream.result().tokens == (51, 52, 53)
    assert stream.result().finish_reason == "eos"


@dataclass(frozen=True)
class AtOnce(Search):
    """Says nothing before it is done, as a beam search does."""

    name: ClassVar[str] = "at-once"
    tokens: tuple[int, ...] = (20, 21, 22, 23)

    def flow(self, context: Context) -> Flow:
        yield Request(extend=(Extend(0, context.prompt, None),))
        return (Found(self.tokens, score=-1.0), Found((30,), score=-2.0))


def test_what_a_search_returns_at_its_end_passes_the_rules_too(toy_runner: Runner) -> None:
    assert toy_runner.generate([1], search=AtOnce()).tokens == (20, 21, 22, 23)
    limited = toy_runner.generate([1], search=AtOnce(), max_tokens=2)
    assert (limited.tokens, limited.finish_reason) == ((20, 21), "length")
    string = toy_runner.tokenizer.decode([22])
    stopped = toy_runner.generate([1], search=AtOnce(), stop=string)
    assert (stopped.text, stopped.finish_reason) == (toy_runner.tokenizer.decode([20, 21]), "stop")


def test_a_text_is_continued_and_tokens_are_answered(tmp_path: Path) -> None:
    """A tokenizer with a mark for spaces drops the one before a first word; after a text it belongs there."""
    tokenizer = with_control(sentencepiece)
    runner = Runner(toy(tmp_path, vocabulary=400), tokenizer)
    search = AtOnce(tokenizer.encode("a rose")[1:])
    assert runner.generate("the", search=search).text == " a rose"
    assert runner.generate(tokenizer.encode("the"), search=search).text == "a rose"


def test_a_released_row_gives_its_memory_to_the_next(toy_runner: Runner) -> None:
    rows = Rows((toy_runner.model,), capacity=8)
    (first,), _ = rows.extend([Extend(0, (1, 2), None)])
    rows.release(0, 0)
    (second,), _ = rows.extend([Extend(7, (3,), None)])
    assert np.shares_memory(first, second)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(extend=(Extend(0, (1,), 5),)), "the search asks for row 5"),
        (Request(extend=(Extend(5, (1,), 5),)), "the search asks for row 5"),
        (Request(extend=(Extend(0, (1,), None, model=1),)), "the search asks for model 1"),
        (Request(extend=(Extend(0, (1,), None),), hidden=True), "hidden states are asked for, .*--hidden-states"),
        (Request(extend=(Extend(0, (), None),)), "no tokens were given"),
    ],
)
def test_a_request_that_cannot_be_done_is_an_error(toy_runner: Runner, request_: Request, message: str) -> None:
    class Wrong(Search):
        def flow(self, context: Context) -> Flow:
            yield request_
            return ()

    with pytest.raises(GenerationError, match=message):
        toy_runner.generate([1], search=Wrong())


def test_rows_that_take_turns_use_no_more_memory(toy_runner: Runner) -> None:
    """As the rows of a beam do: each goes on from another, and what is left is used again."""
    rows = Rows((toy_runner.model,), capacity=60)
    rows.extend([Extend(row, (1, row + 2), None) for row in range(3)])
    for step in range(40):
        rows.extend([Extend(row, (step,), (row + step) % 3) for row in range(3)])
    rows.release(0, 1)
    rows.extend([Extend(7, (3,), None)])
    gc.collect()
    sessions = [item for item in gc.get_objects() if type(item) is Session and item.model is toy_runner.model]
    assert len(sessions) <= 6
