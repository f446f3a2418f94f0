"""sdk, search: several samples of one prompt, which share its prefill and take their steps together."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgewise.errors import OptionError
from edgewise.search.protocol import Context, Extend, Flow, Reply, Request, Search
from edgewise.search.stepwise import Stepwise

Handle = tuple[int, int]  # model, row


@dataclass(frozen=True, kw_only=True)
class Samples(Search):
    """Runs a search `n` times on one prompt; each time is a sequence, numbered from 0.

    Sample 0 is what the search gives alone, as far as kernels give a batch the same scores. Each sample has random
    numbers of its own, drawn from the seed, so that it depends neither on how many there are nor on when others end.
    """

    name: ClassVar[str] = "samples"
    search: Search
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise OptionError(f"n is {self.n}; it must be 1 or more")
        if not _one_sequence(self.search):
            raise OptionError(
                f"n is {self.n}, and search '{self.search.name}' gives its sequences together; "
                "n is for searches that choose token by token, such as sample; beam has num_return, mbr has samples"
            )

    def flow(self, context: Context) -> Flow:
        rngs = (context.rng, *context.rng.spawn(self.n - 1))
        rows = _Rows(self.n)
        with ExitStack() as stack:
            flows = [
                stack.enter_context(closing(self.search.flow(replace(context, rng=rng))))  # each is closed at the end
                for rng in rngs
            ]
            requests = {i: next(flow) for i, flow in enumerate(flows)}
            while requests:
                replies = rows.split(requests, (yield rows.merge(requests)))
                requests = {}
                for i, reply in replies.items():
                    with suppress(StopIteration):
                        requests[i] = flows[i].send(reply)
        return ()


def several(search: Search, n: int | None) -> Search:
    """The search that the option `n` of a generation asks for."""
    return search if n is None else Samples(search=search, n=n)


def _one_sequence(search: Any) -> bool:
    """Whether it emits one sequence as it goes: token by token, or a search around one that does."""
    if hasattr(search, "num_return"):  # around one whose sequences it ranks
        return False
    return isinstance(search, Stepwise) or (isinstance(search, Search) and _one_sequence(getattr(search, "search", 0)))


class _Rows:
    """The rows of many flows as rows of one: row r of flow i is row r * n + i.

    Rows that begin alike in one request are computed once: the others are forked from it at their next step.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._shared: dict[Handle, tuple[int, int]] = {}  # not forked yet: from which row, how many tokens
        self._kept: set[Handle] = set()  # released, and still to be forked from
        self._places: dict[int, list[int]] = {}  # of each flow, where its rows are in the merged request

    def merge(self, requests: Mapping[int, Request]) -> Request:
        extends: list[Extend] = []
        begun: dict[Extend, int] = {}
        self._places = {}
        for i, request in requests.items():
            self._places[i] = [self._place(i, extend, extends, begun) for extend in request.extend]
        return Request(
            extend=tuple(extends),
            release=tuple(self._released(requests)),
            emit=tuple(replace(emit, sequence=i) for i, request in requests.items() for emit in request.emit),
            hidden=any(request.hidden for request in requests.values()),
        )

    def split(self, requests: Mapping[int, Request], reply: Reply) -> dict[int, Reply]:
        """To each flow what it asked for; what several asked for, a copy each."""
        uses = Counter(place for places in self._places.values() for place in places)
        replies = {}
        for i, request in requests.items():
            places = self._places[i]
            logits = tuple(reply.logits[p].copy() if uses[p] > 1 else reply.logits[p] for p in places)
            hidden = tuple(reply.hidden[p] for p in places) if reply.hidden and request.hidden else None
            replies[i] = Reply(logits, hidden, frozenset({0}) if i in reply.stopped else frozenset())
        return replies

    def _place(self, i: int, extend: Extend, extends: list[Extend], begun: dict[Extend, int]) -> int:
        """Where in the merged request this one is done."""
        own = extend.row * self._n + i
        if extend.parent is None and extend in begun:
            self._shared[extend.model, own] = (extends[begun[extend]].row, len(extend.tokens))
            return begun[extend]
        if extend.parent is None:
            begun[extend] = len(extends)
            extends.append(replace(extend, row=own))
        else:
            extends.append(self._forked(replace(extend, row=own, parent=extend.parent * self._n + i)))
        return len(extends) - 1

    def _forked(self, extend: Extend) -> Extend:
        assert extend.parent is not None
        shared = self._shared.get((extend.model, extend.parent))
        if shared is None:
            return extend
        if extend.parent == extend.row:
            del self._shared[extend.model, extend.row]
        source, length = shared
        return replace(extend, parent=source, length=length if extend.length < 0 else extend.length)

    def _released(self, requests: Mapping[int, Request]) -> list[Handle]:
        """What can be released: not what others are still to be forked from."""
        asked = {(model, row * self._n + i) for i, request in requests.items() for model, row in request.release}
        own = {handle for handle in asked if self._shared.pop(handle, None) is None} | self._kept
        sources = {(model, source) for (model, _), (source, _) in self._shared.items()}
        self._kept = own & sources
        return sorted(own - sources)
