"""sdk, search: a search whose every step is scored several times: guidance, contrast and ensembles are made of it.

Each extension of a row is done on companions too: rows of the same model that began with another prompt, rows of
another model, or both. The search that is mirrored receives the scores of all as one, and knows of nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from edgewise.errors import GenerationError
from edgewise.search.protocol import Extend, FloatArray, Flow, Reply, Request

Combine = Callable[[FloatArray, Sequence[FloatArray]], FloatArray]  # of all, [positions, vocabulary]; may write


@dataclass(frozen=True, kw_only=True)
class Companion:
    """Rows of `model` that hold what the search's rows hold; with `prompt`, which these begin with, `instead` of it."""

    model: int = 0
    prompt: tuple[int, ...] = ()
    instead: tuple[int, ...] = ()


def mirror(flow: Flow, combine: Combine, *companions: Companion) -> Flow:
    """The flow with its scores of model 0 combined with those of companions.

    Scores of places within a prompt that a companion has another one for stay as they are: it has no such place.
    Other models that the search uses, such as a draft, are not mirrored.
    """
    lengths = _Lengths()
    others = [_Others(each, lengths, number, len(companions) + 1) for number, each in enumerate(companions, 1)]
    with closing(flow):
        try:
            request = next(flow)
            while True:
                gone = lengths.release(request.release)
                released = [row for each in others for row in each.release(gone)]
                kept = [lengths.kept(extend) for extend in request.extend]
                followed = [each.follow(request.extend, kept) for each in others]
                lengths.extend(request.extend, kept)
                reply = yield _widened(request, followed, released, len(companions) + 1)
                request = flow.send(_narrowed(reply, request.extend, followed, combine))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class _Lengths:
    """How many tokens the rows of the search hold."""

    def __init__(self) -> None:
        self._lengths: dict[int, int] = {}

    def __getitem__(self, row: int) -> int:
        return self._lengths[row]

    def kept(self, extend: Extend) -> int:
        """Tokens of its parent that a row goes on from."""
        if extend.parent is None or extend.model != 0:
            return 0
        return self._lengths[extend.parent] if extend.length < 0 else extend.length

    def extend(self, extends: Iterable[Extend], kept: Iterable[int]) -> None:
        for extend, before in zip(extends, kept, strict=True):
            if extend.model == 0:
                self._lengths[extend.row] = before + len(extend.tokens)

    def release(self, rows: Iterable[tuple[int, int]]) -> list[int]:
        """Those of model 0 that are there no longer."""
        return [row for model, row in rows if model == 0 and self._lengths.pop(row, None) is not None]


class _Others:
    """The rows of one companion: row `n` of the search has row `stride * n + number` beside it."""

    def __init__(self, what: Companion, lengths: _Lengths, number: int, stride: int) -> None:
        self._what = what
        self._lengths = lengths
        self._number = number
        self._stride = stride
        self._made: set[int] = set()

    def release(self, rows: Iterable[int]) -> list[tuple[int, int]]:
        """What is released here when rows of the search are, as `(model, row)`."""
        gone = [row for row in rows if row in self._made]
        self._made.difference_update(gone)
        return [(self._what.model, self._own(row)) for row in gone]

    def follow(self, extends: Sequence[Extend], kept: Sequence[int]) -> list[Extend | None]:
        """Beside each extension what is done here; None where it has no companion, or none yet."""
        pairs = zip(extends, kept, strict=True)
        made = [self._mirrored(*pair) if pair[0].model == 0 else None for pair in pairs]
        self._made.update(extend.row for extend, other in zip(extends, made, strict=True) if other is not None)
        return made

    def _own(self, row: int) -> int:
        return self._stride * row + self._number

    def _mirrored(self, extend: Extend, kept: int) -> Extend | None:
        prompt, instead, model = self._what.prompt, self._what.instead, self._what.model
        ahead = len(prompt) - kept  # tokens of the prompt that the row lacks
        if ahead > 0 and extend.tokens[:ahead] != prompt[kept : kept + len(extend.tokens)]:
            raise GenerationError("the search scores other texts than what the prompt begins: it cannot be mirrored")
        if len(extend.tokens) < ahead:
            return None
        own = self._own(extend.row)
        parent = None if extend.parent is None else self._own(extend.parent)
        if ahead <= 0:
            length = -1 if extend.length < 0 else kept - len(prompt) + len(instead)
            return replace(extend, row=own, parent=parent, length=length, model=model)
        tokens, length = instead + extend.tokens[ahead:], -1
        if extend.parent is None or self._lengths[extend.parent] < len(prompt):
            parent = None
        else:  # the row's last tokens of the prompt are scored again; so is the companion's last one
            tokens, length = tokens[len(instead) - 1 :], len(instead) - 1
        scores = min(extend.scores, len(extend.tokens) - ahead + 1)
        return Extend(own, tokens, parent, length, scores, model)


def _widened(
    request: Request, followed: Sequence[list[Extend | None]], released: list[tuple[int, int]], stride: int
) -> Request:
    """The request with what companions do after what the search wants; the search's row n is `stride * n`."""
    own = [
        replace(extend, row=stride * extend.row, parent=None if extend.parent is None else stride * extend.parent)
        for extend in request.extend
    ]
    release = (*((model, stride * row) for model, row in request.release), *released)
    others = [extend for each in followed for extend in each if extend is not None]
    return replace(request, extend=(*own, *others), release=release)


def _narrowed(
    reply: Reply, extends: Sequence[Extend], followed: Sequence[list[Extend | None]], combine: Combine
) -> Reply:
    """The reply to what the search wants: where all companions were scored, of all."""
    own = list(reply.logits[: len(extends)])
    rest = iter(reply.logits[len(extends) :])
    others = [[None if extend is None else next(rest) for extend in each] for each in followed]
    for i, scores in enumerate(zip(*others, strict=True)):
        beside = [each for each in scores if each is not None]
        if len(beside) == len(scores) and beside:
            places = min(len(each) for each in beside)
            alone = len(own[i]) - places
            combined = combine(own[i][alone:], [each[len(each) - places :] for each in beside])
            if alone:
                own[i][alone:] = combined
            else:
                own[i] = combined
    hidden = None if reply.hidden is None else reply.hidden[: len(own)]
    return replace(reply, logits=tuple(own), hidden=hidden)
