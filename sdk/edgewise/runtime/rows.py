"""sdk, runtime: the rows of a search as sessions: each request by the cheapest cache operations that do it."""

from collections.abc import Sequence

from edgewise.errors import GenerationError
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session
from edgewise.search.protocol import Extend, FloatArray


class Rows:
    """Sessions by the handles that a search chose; `capacity` is what each holds without growing."""

    def __init__(self, model: Model, *, capacity: int) -> None:
        self._model = model
        self._capacity = capacity
        self._rows: dict[int, Session] = {}
        self._free: list[Session] = []

    def extend(self, extends: Sequence[Extend]) -> tuple[FloatArray, ...]:
        """Do what is asked, each row from its parent as it was before the request; the scores of each."""
        if any(extend.parent != extend.row for extend in extends):
            self._fork(extends)
        return tuple(self._append(extend) for extend in extends)

    def release(self, model: int, row: int) -> None:
        """Forget a row; its memory serves the next one."""
        self._check_model(model)
        session = self._rows.pop(row, None)
        if session is not None:
            self._free.append(session)

    def _append(self, extend: Extend) -> FloatArray:
        self._check_model(extend.model)
        session = self._parent(extend.row)
        if extend.parent == extend.row and extend.length >= 0:
            session.rewind(extend.length)
        if len(extend.tokens) == extend.scores == 1:
            return session.decode(extend.tokens[0])
        return session.prefill(extend.tokens, scores=extend.scores)

    def _fork(self, extends: Sequence[Extend]) -> None:
        """New sessions for the rows that do not go on in place, all made before any row changes."""
        made = {e.row: self._session_for(e) for e in extends if e.parent != e.row}
        for row, session in made.items():
            self.release(0, row)
            self._rows[row] = session

    def _session_for(self, extend: Extend) -> Session:
        session = self._free.pop() if self._free else Session(self._model, capacity=self._capacity)
        if extend.parent is None:
            session.rewind(0)
        else:
            session.follow(self._parent(extend.parent), None if extend.length < 0 else extend.length)
        return session

    def _parent(self, row: int) -> Session:
        if row not in self._rows:
            raise GenerationError(f"the search asks for row {row}, which it has not made or has released")
        return self._rows[row]

    def _check_model(self, model: int) -> None:
        if model != 0:
            raise GenerationError(f"the search asks for model {model}; this runner has one, model 0")
