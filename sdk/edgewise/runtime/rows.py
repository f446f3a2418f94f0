"""sdk, runtime: the rows of a search as sessions: each request by the cheapest cache operations that do it."""

from collections.abc import Sequence
from typing import Protocol

from edgewise.errors import GenerationError
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.search.protocol import Extend, FloatArray

Handle = tuple[int, int]  # model, row


class Prefixes(Protocol):
    """Keys and values of tokens that were computed before."""

    def restore(self, session: Session, tokens: Sequence[int]) -> int:
        """Bring as many of the first tokens as are known into an empty session, never the last one; how many."""
        ...

    def store(self, session: Session) -> None:
        """Take what is of use later from a session that holds a prompt, and nothing yet but the prompt."""
        ...


class Rows:
    """Sessions by the handles that a search chose; `capacity` is what each holds without growing.

    Rows of model 0 that begin from nothing take from `prefixes` what is there, and leave there what they computed.
    """

    def __init__(self, models: Sequence[Model], *, capacity: int, prefixes: Prefixes | None = None) -> None:
        self._models = tuple(models)
        self._capacity = capacity
        self._prefixes = prefixes
        self.restored: int | None = None  # tokens that were known of the first of these rows: the prompt
        self._rows: dict[Handle, Session] = {}
        self._free: list[Session] = []

    def extend(self, extends: Sequence[Extend], *, hidden: bool = False) -> tuple[FloatArray, ...]:
        """Do what is asked, each row from its parent as it was before the request; the scores of each."""
        if any(extend.parent != extend.row for extend in extends):
            self._fork(extends)
        return tuple(self._append(extend, hidden) for extend in extends)

    def hidden(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        """The hidden states of what was just extended, for each `[tokens, hidden size]`."""
        states = (self._session(extend.model, extend.row).hidden for extend in extends)
        return tuple(each for each in states if each is not None)

    def release(self, model: int, row: int) -> None:
        """Forget a row; its memory serves the next one."""
        session = self._rows.pop((model, row), None)
        if session is not None:
            self._free.append(session)

    def close(self) -> None:
        """Release all rows."""
        for handle in tuple(self._rows):
            self.release(*handle)

    def _append(self, extend: Extend, hidden: bool) -> FloatArray:
        session = self._session(extend.model, extend.row)
        if extend.parent == extend.row and extend.length >= 0:
            session.rewind(extend.length)
        if len(extend.tokens) == extend.scores == 1 and not hidden:
            return session.decode(extend.tokens[0])
        if self._prefixes and extend.parent is None and extend.model == 0 and not hidden:
            return self._begin(session, extend, self._prefixes)
        return session.prefill(extend.tokens, scores=extend.scores, hidden=hidden)

    def _begin(self, session: Session, extend: Extend, prefixes: Prefixes) -> FloatArray:
        """Compute what is not known, and all that is scored."""
        unscored = len(extend.tokens) - extend.scores
        known = prefixes.restore(session, extend.tokens[: unscored + 1])
        self.restored = known if self.restored is None else self.restored
        scores = session.prefill(extend.tokens[known:], scores=extend.scores)
        prefixes.store(session)
        return scores

    def _fork(self, extends: Sequence[Extend]) -> None:
        """New sessions for the rows that do not go on in place, all made before any row changes."""
        made = {(e.model, e.row): self._session_for(e) for e in extends if e.parent != e.row}
        for handle, session in made.items():
            self.release(*handle)
            self._rows[handle] = session

    def _session_for(self, extend: Extend) -> Session:
        session = self._empty(extend.model)
        if extend.parent is not None:
            parent = self._session(extend.model, extend.parent)
            session.follow(parent, None if extend.length < 0 else extend.length)
        return session

    def _empty(self, number: int) -> Session:
        if number >= len(self._models):
            raise GenerationError(
                f"the search asks for model {number}, and {len(self._models) - 1} assistants were given; give it one"
            )
        model = self._models[number]
        for session in self._free:
            if session.model is model:
                self._free.remove(session)
                session.rewind(0)
                return session
        return Session(model, capacity=min(self._capacity, model.context))

    def _session(self, model: int, row: int) -> Session:
        if (model, row) not in self._rows:
            raise GenerationError(f"the search asks for row {row} of model {model}, which it has not made or released")
        return self._rows[model, row]
