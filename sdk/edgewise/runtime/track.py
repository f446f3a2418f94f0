"""sdk, runtime: a sequence on its way: its tokens, its text, and the rules that may end it."""

from collections.abc import Callable, Sequence
from copy import copy

from edgewise.errors import GenerationError
from edgewise.runtime.result import Completion, Piece
from edgewise.search.protocol import LogProb
from edgewise.search.stops import Progress, StopRule, Verdict, needs_logprobs
from edgewise.text.stream import TextStream


class Track:
    """Takes the tokens that a search emits and hands out text that no rule can take back.

    Where several rules stop at one token, the first of them gives the reason, and the text is cut by all.
    """

    def __init__(self, rules: Sequence[StopRule], stream: TextStream, seconds: Callable[[], float]) -> None:
        self.tokens: list[int] = []
        self.logprobs: list[LogProb] = []
        self.score: float | None = None
        self.reason: str | None = None
        self._rules = tuple(rules)
        self._needing = [rule.name for rule in rules if needs_logprobs(rule)]
        self._stream = stream
        self._tail = ""  # text that is not handed out yet
        self._texts: list[str] = []
        self._seconds = seconds  # since the generation began

    @property
    def text(self) -> str:
        """All that was handed out."""
        return "".join(self._texts)

    @property
    def completion(self) -> Completion:
        """What the sequence is so far; it is cancelled unless something has ended it."""
        return Completion(self.text, tuple(self.tokens), self.reason or "cancelled", self.score, tuple(self.logprobs))

    def push(self, tokens: Sequence[int], logprobs: Sequence[LogProb] = ()) -> Piece:
        """Take tokens until a rule stops: those that it took, and the text that became certain."""
        before, texts = len(self.tokens), []
        for place, token in enumerate(tokens):
            if self.reason is None:
                texts.append(self._take(token, logprobs[place] if place < len(logprobs) else None))
        text = "".join(texts)
        self._texts.append(text)
        return Piece(text, tuple(self.tokens[before:]))

    def fork(self) -> "Track":
        """Another one, where this one is."""
        other = copy(self)
        other.tokens, other.logprobs, other._texts = list(self.tokens), list(self.logprobs), list(self._texts)
        other._stream = self._stream.fork()
        return other

    def finish(self, reason: str) -> Piece:
        """End the sequence for a reason of the caller's; nothing happens to one that a rule has ended."""
        if self.reason is not None:
            return Piece("", ())
        self.reason = reason
        text = self._tail + self._stream.flush()
        self._texts.append(text)
        return Piece(text, ())

    def _take(self, token: int, logprob: LogProb | None) -> str:
        if logprob is None and self._needing:
            raise GenerationError(f"stop rule '{self._needing[0]}' needs log-probabilities, and the search gives none")
        before = self._stream.fork()
        self.tokens.append(token)
        if logprob is not None:
            self.logprobs.append(logprob)
        piece = self._stream.push(token)
        self._tail += piece
        progress = Progress(self.tokens, piece, self._tail, self._seconds(), self.logprobs)
        hold = 0
        stops: list[Verdict] = []
        for rule in self._rules:
            verdict = rule.check(progress)
            hold = max(hold, verdict.hold)
            if verdict.stop:
                self.reason = self.reason or rule.name
                stops.append(verdict)
        if not all(verdict.keep for verdict in stops):
            self.tokens.pop()
            del self.logprobs[len(self.tokens) :]
            self._stream = before
        if stops:
            return self._end(stops)
        certain = len(self._tail) - hold
        text, self._tail = self._tail[:certain], self._tail[certain:]
        return text

    def _end(self, stops: list[Verdict]) -> str:
        cut = max(verdict.cut for verdict in stops)
        spelled = any(verdict.cut and verdict.keep for verdict in stops)  # what is unfinished comes after the cut
        return self._tail[: len(self._tail) - cut] + ("" if spelled else self._stream.flush())
