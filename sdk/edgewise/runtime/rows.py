"""sdk, runtime: the rows of a search as sessions: each request by the cheapest cache operations that do it."""

from collections.abc import Sequence

from edgewise.errors import GenerationError
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.search.protocol import Extend, FloatArray

Handle = tuple[int, int]  # model, row


class Rows:
    """Sessions by the handles that a search chose; `capacity` is what each holds without growing."""

    def __init__(self, models: Sequence[Model], *, capacity: int) -> None:
        self._models = tuple(models)
        self._capacity = capacity
        self._rows: dict[Handle, Session] = {}
        self._free: list[Session] = []

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        """Do what is asked, each row from its parent as it was before the request; the scores of each."""
        if any(extend.parent != extend.row for extend in extends):
            self._fork(extends)
        return tuple(self._append(extend) for extend in extends)

    def release(self, model: int, row: int) -> None:
        """Forget a row; its memory serves the next one."""
        session = self._rows.pop((model, row), None)
        if session is not None:
            self._free.append(session)

    def _append(self, extend: Extend) -> FloatArray:
        session = self._session(extend.model, extend.row)
        if extend.parent == extend.row and extend.length >= 0:
            session.rewind(extend.length)
        if len(extend.tokens) == extend.scores == 1:
            return session.decode(extend.tokens[0])
        return session.prefill(extend.tokens, scores=extend.scores)

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
