"""sdk, runtime: a generation under way, and its timings."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Protocol, Self

from edgewise.runtime.drive import Steps, Tracks, drive
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
        self.first: float | None = None  # when it emitted its first tokens
        self.last = 0.0  # when it last did
        self.between: list[float] = []  # the tokens of sequence 0; what comes together is 0 apart
        self._latest: float | None = None  # when that had its last one
        self.over = False  # the search has ended

    def start(self) -> None:
        if self._started is None:
            self._started = time.perf_counter()

    def seconds(self) -> float:
        return 0.0 if self._started is None else time.perf_counter() - self._started

    def emitted(self, sequence: int, tokens: int) -> None:
        """A sequence has so many more tokens now."""
        self.last = self.seconds()
        self.first = self.first or self.last
        if sequence == 0:
            waited = [] if self._latest is None else [self.last - self._latest]
            self.between += [*waited, *[0.0] * (tokens - 1)]
            self._latest = self.last

    def for_rules(self) -> float:
        """What stop rules are told: nothing that a search returns at its end is too late."""
        return 0.0 if self.over else self.seconds()


class Pieces(Iterator[Piece], Protocol):
    """What a stream is read from."""

    def close(self) -> None:
        """Nothing more is wanted: all that the generation holds is given back."""
        ...


class Stream(Iterator[Piece]):
    """The pieces of a generation as they come. `result()` runs it to its end, `close()` cancels it.

    Nothing is computed before the first piece is asked for; its clock starts then. A scheduler starts it in its turn.
    """

    def __init__(
        self,
        flow: Flow,
        rows: Rows,
        rules: Sequence[StopRule],
        text: Callable[[], TextStream],
        *,
        prompt_tokens: int,
        prompt_tokens_dropped: int = 0,
        load_s: float,
        spans: Callable[[], Spans] = Spans,
        clock: Clock,
        drafts: Drafts,
        run: Callable[[Steps[None], Rows], Pieces] | None = None,  # by default alone, whenever a piece is asked for
    ) -> None:
        self._clock = clock
        self._tracks = Tracks(lambda: Track(rules, text(), clock.for_rules), clock.emitted)
        self._pieces: Pieces = (run or _alone)(_steps(flow, rows, self._tracks, clock), rows)
        self._drafts = drafts
        self._rows = rows
        self._spans = spans
        self._prompt_tokens = prompt_tokens
        self._dropped = prompt_tokens_dropped
        self._load_s = load_s

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        return next(self._pieces)

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
        first, last = self._clock.first, self._clock.last
        decoding = last - (first or 0.0)
        cached = self._rows.restored or 0
        return Timings(
            load_s=self._load_s,
            prompt_tokens=self._prompt_tokens,
            prompt_tokens_cached=cached,
            prompt_tokens_dropped=self._dropped,
            new_tokens=tokens,
            tokens_dropped=self._rows.forgotten,
            time_to_first_token_s=first,
            between_tokens_s=tuple(self._clock.between),
            total_s=last,
            prefill_tokens_per_s=(self._prompt_tokens - self._dropped - cached) / first if first else None,
            decode_tokens_per_s=(tokens - 1) / decoding if tokens > 1 and decoding > 0 else None,
            peak_memory_bytes=peak_memory(),
        )


def _alone(steps: Steps[None], rows: Rows) -> Generator[Piece, None, None]:
    """Each request is computed as it comes."""
    with closing(steps):
        step = next(steps, None)
        while step is not None:
            scored = None
            if isinstance(step, Piece):
                yield step
            else:
                scored = rows.extend(step.extend, hidden=step.hidden)
            try:
                step = steps.send(scored)
            except StopIteration:
                return


def _steps(flow: Flow, rows: Rows, tracks: Tracks, clock: Clock) -> Steps[None]:
    """All of a generation: its search, and what is left to say when that has ended."""
    clock.start()
    try:
        found = yield from drive(flow, rows.release, tracks)
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
