"""sdk, runtime: the loop between a search and its sessions."""

from collections.abc import Callable, Generator, Sequence
from typing import Protocol

from edgewise.errors import GenerationError
from edgewise.runtime.result import Piece
from edgewise.runtime.track import Track
from edgewise.search.protocol import Extend, FloatArray, Flow, Reply, Request
from edgewise.search.protocol import Sequence as Found


class Scores(Protocol):
    """Whatever computes scores: `Rows` of sessions; in a test, a table."""

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]: ...

    def release(self, model: int, row: int) -> None: ...


class Tracks:
    """The sequences of one generation by number; 0 is the one that is streamed."""

    def __init__(self, new: Callable[[], Track]) -> None:
        self._new = new
        self._tracks: dict[int, Track] = {0: new()}
        self.stopped: frozenset[int] = frozenset()

    def __getitem__(self, sequence: int) -> Track:
        if sequence not in self._tracks:
            self._tracks[sequence] = self._new()
        return self._tracks[sequence]

    def emit(self, sequence: int, tokens: Sequence[int]) -> Piece:
        track = self[sequence]
        piece = track.push(tokens)
        if track.reason is not None:
            self.stopped |= {sequence}
        return piece


def drive(flow: Flow, scores: Scores, tracks: Tracks) -> Generator[Piece, None, tuple[Found, ...]]:
    """Run a search to its end: yields what sequence 0 emits, returns what the search found."""
    try:
        request = next(flow)
        while True:
            for place in request.release:
                scores.release(*place)
            for sequence, tokens in request.emit:
                piece = tracks.emit(sequence, tokens)
                if sequence == 0:
                    yield piece
            request = flow.send(_reply(request, scores, tracks))
    except StopIteration as end:
        found: tuple[Found, ...] = end.value
        return found
    finally:
        flow.close()


def _reply(request: Request, scores: Scores, tracks: Tracks) -> Reply:
    if request.hidden:
        raise GenerationError("the search asks for hidden states, and the bundle's graph gives none")
    return Reply(scores.extend(request.extend) if request.extend else (), None, tracks.stopped)
