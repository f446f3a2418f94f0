"""sdk, runtime: what a search that keeps several continuations asks: does a stop rule end this one?"""

from collections.abc import Callable, Sequence

from edgewise.runtime.track import Track
from edgewise.search.protocol import LogProb
from edgewise.search.stops import StopRule
from edgewise.text.stream import TextStream

KEPT = 512  # sequences that are remembered, so that one token more of them costs one token


class Ended:
    """Names the rule that ends a sequence of new tokens, or None; nothing of it is emitted."""

    def __init__(self, rules: Sequence[StopRule], text: Callable[[], TextStream], seconds: Callable[[], float]) -> None:
        self._rules = tuple(rules)
        self._text = text
        self._seconds = seconds
        self._tracks: dict[tuple[int, ...], Track] = {}

    def __call__(self, tokens: tuple[int, ...], logprobs: tuple[LogProb, ...] = ()) -> str | None:
        return self._track(tokens, logprobs).reason if self._rules else None

    def _track(self, tokens: tuple[int, ...], logprobs: tuple[LogProb, ...]) -> Track:
        before = self._tracks.get(tokens[:-1])
        track = before.fork() if before else Track(self._rules, self._text(), self._seconds)
        new = len(tokens) - 1 if before else 0
        track.push(tokens[new:], logprobs[new:])
        self._tracks[tokens] = track
        if len(self._tracks) > KEPT:
            del self._tracks[next(iter(self._tracks))]
        return track
