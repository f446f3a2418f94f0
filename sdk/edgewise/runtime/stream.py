"""sdk, runtime: a generation under way, and its timings."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Self

from edgewise.runtime.drive import Tracks, drive
from edgewise.runtime.result import Completion, Piece, Result, Timings, peak_memory
from edgewise.runtime.rows import Rows
from edgewise.runtime.track import Track
from edgewise.search.protocol import Drafts, Emit, Flow
from edgewise.search.stops import StopRule
from edgewise.text.reasoning import Span, Spans, joined
from edgewise.text.stream import TextStream


class Clock:
    """Seconds since a generation began."""

    def __init__(self) -> None:
        self._started: float | None = None
        self.over = False  # the search has ended

    def start(self) -> None:
        if self._started is None:
            self._started = time.perf_counter()

    def seconds(self) -> float:
        return 0.0 if self._started is None else time.perf_counter() - self._started

    def for_rules(self) -> float:
        """What stop rules are told: nothing that a search returns at its end is too late."""
        return 0.0 if self.over else self.seconds()


class Stream(Iterator[Piece]):
    """The pieces of a generation as they come. `result()` runs it to its end, `close()` cancels it.

    Nothing is computed before the first piece is asked for; its clock starts then.
    """

    def __init__(
        self,
        flow: Flow,
        rows: Rows,
        rules: Sequence[StopRule],
        text: Callable[[], TextStream],
        *,
        prompt_tokens: int,
        load_s: float,
        spans: Callable[[], Spans] = Spans,
        clock: Clock,
        drafts: Drafts,
    ) -> None:
        self._clock = clock
        self._tracks = Tracks(lambda: Track(rules, text(), clock.for_rules))
        self._pieces = _pieces(flow, rows, self._tracks, clock)
        self._drafts = drafts
        self._rows = rows
        self._spans = spans
        self._prompt_tokens = prompt_tokens
        self._load_s = load_s
        self._first: float | None = None  # seconds to the first token
        self._last = 0.0  # seconds to the last one

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        self._clock.start()
        piece = next(self._pieces)
        if piece.tokens:
            self._last = self._clock.seconds()
            self._first = self._first or self._last
        return piece

    def close(self) -> None:
        """Stop here: what was generated so far becomes the result, with the reason "cancelled"."""
        self._pieces.close()

    def result(self) -> Result:
        """The whole of it, once what remains of it is generated."""
        for _ in self:
            pass
        completions = tuple(self._separated(track.completion) for track in self._tracks)
        timings = self._timings(sum(len(each.tokens) for each in completions))
        return Result(completions, timings, replace(self._drafts) if self._drafts.steps else None)

    def spans(self) -> Iterator[Span]:
        """The text of sequence 0 as it comes, thoughts apart from answers, without their tags."""
        sorter = self._spans()
        for piece in self:
            if piece.sequence == 0:
                yield from sorter.push(piece.text)
        yield from sorter.flush()

    def _separated(self, completion: Completion) -> Completion:
        sorter = self._spans()
        thought, answer = joined([*sorter.push(completion.text), *sorter.flush()])
        return replace(completion, thought=thought, answer=answer)

    def _timings(self, tokens: int) -> Timings:
        decoding = self._last - (self._first or 0.0)
        cached = self._rows.restored or 0
        return Timings(
            load_s=self._load_s,
            prompt_tokens=self._prompt_tokens,
            prompt_tokens_cached=cached,
            new_tokens=tokens,
            time_to_first_token_s=self._first,
            total_s=self._last,
            prefill_tokens_per_s=(self._prompt_tokens - cached) / self._first if self._first else None,
            decode_tokens_per_s=(tokens - 1) / decoding if tokens > 1 and decoding > 0 else None,
            peak_memory_bytes=peak_memory(),
        )


def _pieces(flow: Flow, rows: Rows, tracks: Tracks, clock: Clock) -> Generator[Piece, None, None]:
    try:
        found = yield from drive(flow, rows, tracks)
    finally:
        rows.close()
    clock.over = True
    for number, sequence in enumerate(found):  # a search need not emit what it returns at its end
        emitted = len(tracks[number].tokens)
        tracks[number].score = sequence.score
        if rest := sequence.tokens[emitted:]:
            yield tracks.emit(Emit(number, rest, sequence.logprobs[emitted:]))
    for number, track in enumerate(tracks):
        reason = found[number].reason if number < len(found) else None
        last = track.finish(reason or "eos")
        if last.text:
            yield replace(last, sequence=number)
