"""sdk, runtime: the loop between a search and its sessions."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import Protocol

from edgewise.runtime.result import Piece
from edgewise.runtime.track import Track
from edgewise.search.protocol import Emit, Extend, FloatArray, Flow, Reply, Request
from edgewise.search.protocol import Sequence as Found


class Scores(Protocol):
    """Whatever computes scores: `Rows` of sessions; in a test, a table."""

    def extend(self, extends: Sequence[Extend], *, hidden: bool = False) -> tuple[FloatArray, ...]: ...

    def hidden(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        """Of what was just extended with `hidden`."""
        ...

    def release(self, model: int, row: int) -> None: ...


class Tracks:
    """The sequences of one generation by number; there is always a sequence 0."""

    def __init__(self, new: Callable[[], Track]) -> None:
        self._new = new
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
        if track.reason is not None:
            self.stopped |= {emit.sequence}
        return replace(piece, sequence=emit.sequence)


def drive(flow: Flow, scores: Scores, tracks: Tracks) -> Generator[Piece, None, tuple[Found, ...]]:
    """Run a search to its end: yields what it emits, returns what the search found."""
    try:
        request = next(flow)
        while True:
            for place in request.release:
                scores.release(*place)
            for emit in request.emit:
                yield tracks.emit(emit)
            request = flow.send(_reply(request, scores, tracks))
    except StopIteration as end:
        found: tuple[Found, ...] = end.value
        return found
    finally:
        flow.close()


def _reply(request: Request, scores: Scores, tracks: Tracks) -> Reply:
    if not request.extend:
        return Reply(stopped=tracks.stopped)
    logits = scores.extend(request.extend, hidden=request.hidden)
    return Reply(logits, scores.hidden(request.extend) if request.hidden else None, tracks.stopped)
