"""sdk, runtime: the loop between a search and whatever computes its scores."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import TypeVar

from edgewise.runtime.result import Piece
from edgewise.runtime.rows import Scored
from edgewise.runtime.track import Track
from edgewise.search.protocol import Emit, Flow, Reply, Request
from edgewise.search.protocol import Sequence as Found

T = TypeVar("T")
Steps = Generator[Piece | Request, Scored | None, T]  # pieces, and requests whose scores are sent in return


class Tracks:
    """The sequences of one generation by number; there is always a sequence 0."""

    def __init__(self, new: Callable[[], Track], emitted: Callable[[int, int], None]) -> None:
        self._new = new
        self._emitted = emitted
        self._tracks: dict[int, Track] = {0: new()}
        self.stopped: frozenset[int] = frozenset()

    def __getitem__(self, sequence: int) -> Track:
        if sequence not in self._tracks:
            self._tracks[sequence] = self._new()
        return self._tracks[sequence]

    def __iter__(self) -> Iterator[Track]:
        """In order of their numbers."""
        return (self._tracks[number] for number in sorted(self._tracks))

    def emit(self, emit: Emit) -> Piece:
        track = self[emit.sequence]
        piece = track.push(emit.tokens, emit.logprobs)
        if piece.tokens:
            self._emitted(emit.sequence, len(piece.tokens))
        if track.reason is not None:
            self.stopped |= {emit.sequence}
        return replace(piece, sequence=emit.sequence)


def drive(flow: Flow, release: Callable[[int, int], None], tracks: Tracks) -> Steps[tuple[Found, ...]]:
    """Run a search to its end: yields what it emits and what it wants to have scored; returns what it found."""
    try:
        request = next(flow)
        while True:
            for place in request.release:
                release(*place)
            for emit in request.emit:
                yield tracks.emit(emit)
            scored = (yield request) if request.extend else None
            logits, hidden = scored or ((), None)
            request = flow.send(Reply(logits, hidden, tracks.stopped))
    except StopIteration as end:
        found: tuple[Found, ...] = end.value
        return found
    finally:
        flow.close()
