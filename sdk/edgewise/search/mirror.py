"""sdk, search: a search whose every step is scored twice: guidance and contrastive decoding are made of it.

Each extension of a row is done on a companion too: a row of the same model that began with another prompt, a row of
another model, or both. The search that is mirrored receives the scores of both as one, and knows of nothing.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import replace

from edgewise.errors import GenerationError
from edgewise.search.protocol import Extend, FloatArray, Flow, Reply, Request

Combine = Callable[[FloatArray, FloatArray], FloatArray]  # of both, [positions, vocabulary]; may write into them


def mirror(
    flow: Flow, combine: Combine, *, model: int = 0, prompt: tuple[int, ...] = (), instead: tuple[int, ...] = ()
) -> Flow:
    """The flow with its scores of model 0 combined with those of companions, rows of `model`.

    A companion holds what its row holds; with `prompt`, which rows begin with, it holds `instead` in place of that.
    Scores of places within the prompt stay as they are then: a companion has no such place. Other models that the
    search uses, such as a draft, are not mirrored.
    """
    companions = _Companions(prompt, instead, model)
    with closing(flow):
        try:
            request = next(flow)
            while True:
                released = companions.release(request.release)
                mirrored = companions.follow(request.extend)
                reply = yield _widened(request, mirrored, released)
                request = flow.send(_narrowed(reply, mirrored, combine))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class _Companions:
    """Which rows have a companion, and how many tokens rows hold."""

    def __init__(self, prompt: tuple[int, ...], instead: tuple[int, ...], model: int) -> None:
        self._prompt = prompt
        self._instead = instead
        self._model = model
        self._lengths: dict[int, int] = {}
        self._made: set[int] = set()

    def release(self, rows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """What is released of companions when rows are, `(model, row)`."""
        own = [row for model, row in rows if model == 0 and self._lengths.pop(row, None) is not None]
        gone = [row for row in own if row in self._made]
        self._made.difference_update(gone)
        return [(self._model, 2 * row + 1) for row in gone]

    def follow(self, extends: Iterable[Extend]) -> list[Extend | None]:
        """Beside each extension what its companion does; None where it has none, or none yet."""
        before = [self._kept(extend) if extend.model == 0 else 0 for extend in extends]
        made = [self._mirrored(*pair) if pair[0].model == 0 else None for pair in zip(extends, before, strict=True)]
        for extend, kept, other in zip(extends, before, made, strict=True):
            if extend.model == 0:
                self._lengths[extend.row] = kept + len(extend.tokens)
            if other is not None:
                self._made.add(extend.row)
        return made

    def _kept(self, extend: Extend) -> int:
        """Tokens of its parent that a row goes on from."""
        if extend.parent is None:
            return 0
        return self._lengths[extend.parent] if extend.length < 0 else extend.length

    def _mirrored(self, extend: Extend, kept: int) -> Extend | None:
        ahead = len(self._prompt) - kept  # tokens of the prompt that the row lacks
        if ahead > 0 and extend.tokens[:ahead] != self._prompt[kept : kept + len(extend.tokens)]:
            raise GenerationError("the search scores other texts than what the prompt begins: it cannot be mirrored")
        if len(extend.tokens) < ahead:
            return None
        own = 2 * extend.row + 1
        parent = None if extend.parent is None else 2 * extend.parent + 1
        if ahead <= 0:
            length = -1 if extend.length < 0 else kept - len(self._prompt) + len(self._instead)
            return replace(extend, row=own, parent=parent, length=length, model=self._model)
        tokens, length = self._instead + extend.tokens[ahead:], -1
        if extend.parent is None or self._lengths[extend.parent] < len(self._prompt):
            parent = None
        else:  # the row's last tokens of the prompt are scored again; so is the companion's last one
            tokens, length = tokens[len(self._instead) - 1 :], len(self._instead) - 1
        scores = min(extend.scores, len(extend.tokens) - ahead + 1)
        return Extend(own, tokens, parent, length, scores, self._model)


def _widened(request: Request, mirrored: list[Extend | None], released: list[tuple[int, int]]) -> Request:
    """The request with what companions do after what the search wants; rows 2n are the search's, 2n+1 companions."""
    own = [
        replace(extend, row=2 * extend.row, parent=None if extend.parent is None else 2 * extend.parent)
        for extend in request.extend
    ]
    release = (*((model, 2 * row) for model, row in request.release), *released)
    return replace(request, extend=(*own, *filter(None, mirrored)), release=release)


def _narrowed(reply: Reply, mirrored: list[Extend | None], combine: Combine) -> Reply:
    """The reply to what the search wants: where companions were scored, of both."""
    own, others = list(reply.logits[: len(mirrored)]), iter(reply.logits[len(mirrored) :])
    for i, extend in enumerate(mirrored):
        if extend is not None:
            alone = own[i].shape[0] - extend.scores
            combined = combine(own[i][alone:], next(others))
            if alone:
                own[i][alone:] = combined
            else:
                own[i] = combined
    hidden = None if reply.hidden is None else reply.hidden[: len(mirrored)]
    return replace(reply, logits=tuple(own), hidden=hidden)
