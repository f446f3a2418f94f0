"""sdk, runtime: the rows of a search as sessions: each request by the cheapest cache operations that do it."""

from collections import Counter
from collections.abc import Sequence

from edgewise.errors import GenerationError
from edgewise.runtime.batch import Append, Prefixes, compute
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.session import Session
from edgewise.runtime.window import Window
from edgewise.search.protocol import Extend, FloatArray

Handle = tuple[int, int]  # model, row
Scored = tuple[tuple[FloatArray, ...], tuple[FloatArray, ...] | None]  # logits and hidden states, per Extend


class Rows:
    """Sessions by the handles that a search chose; `capacity` is what each holds without growing.

    The rows of a model are slots of one pool, `pools` if it is there, which others may use too. Rows that begin from
    nothing take from the `prefixes` of their model what is known, and leave there what they computed.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        capacity: int,
        prefixes: Sequence[Prefixes] = (),
        pools: dict[Model, Pool] | None = None,
        chunk: int | None = None,
        window: Window | None = None,
        restored: int | None = None,
    ) -> None:
        self._models = tuple(models)
        self._capacity = capacity
        self._prefixes = prefixes
        self._pools = {} if pools is None else pools
        self._chunk = chunk
        self._window = window
        self.forgotten = 0  # tokens of the row of model 0 that a window forgot most of
        self._rows: dict[Handle, Session] = {}
        self.restored = restored  # tokens that were known of the first of these rows: the prompt

    def __len__(self) -> int:
        """Rows of model 0."""
        return sum(model == 0 for model, _ in self._rows)

    def extend(self, extends: Sequence[Extend], *, hidden: bool = False) -> Scored:
        """Do what is asked, each row from its parent as it was before the request; what came of each."""
        appends = self.prepare(extends, hidden=hidden)
        compute(appends)
        return self.scored(appends)

    def prepare(self, extends: Sequence[Extend], *, hidden: bool = False) -> tuple[Append, ...]:
        """What is to be computed for these, with the cache of each row as it has to be before."""
        self._settle(extends)
        return tuple(self._append(extend, hidden) for extend in extends)

    def scored(self, appends: Sequence[Append]) -> Scored:
        """What came of a request once all of it is computed. Raises the first thing that went wrong with it."""
        logits = tuple(append.result() for append in appends)
        if self.restored is None:
            self.restored = appends[0].restored
        states = tuple(append.hidden for append in appends if append.hidden is not None)
        return logits, states if appends[0].wants_hidden else None

    def release(self, model: int, row: int) -> None:
        """Forget a row; its memory serves the next one."""
        session = self._rows.pop((model, row), None)
        if session is not None:
            self.forgotten = max(self.forgotten, 0 if model else session.forgotten)
            session.release()

    def close(self) -> None:
        """Release all rows."""
        for handle in tuple(self._rows):
            self.release(*handle)

    def _append(self, extend: Extend, hidden: bool) -> Append:
        session = self._session(extend.model, extend.row)
        if extend.parent == extend.row and extend.length >= 0:
            session.rewind(_kept(extend, session))
        append = session.append(extend.tokens, scores=extend.scores, hidden=hidden)
        if extend.parent is None and self._prefixes and not hidden and len(extend.tokens) > extend.scores:
            append.prefixes = self._prefixes[extend.model]
        return append

    def _settle(self, extends: Sequence[Extend]) -> None:
        """Sessions for the rows that do not go on in place, before any row changes.

        Of the rows that go on from one that does not go on itself, the first takes over its session. The others copy
        from it, each into the free slot that has most in common with it: such as those of the rows that they replace.
        """
        if len({(extend.model, extend.row) for extend in extends}) < len(extends):
            raise GenerationError("the search extends one row twice in a request")
        moving = {(extend.model, extend.row): extend for extend in extends if extend.parent != extend.row}
        if not moving:
            return
        for model, _ in moving:
            self._pool(model)
        parents = {at: None if e.parent is None else self._session(e.model, e.parent) for at, e in moving.items()}
        leaving = {self._rows.pop(handle) for handle in moving if handle in self._rows}
        heirs = self._inherit(parents, leaving)
        for session in leaving - set(heirs.values()):
            session.release()
        self._reserve([handle[0] for handle in moving if handle not in heirs])
        for handle, extend in moving.items():
            if handle not in heirs:
                self._rows[handle] = self._copy(extend, parents[handle])
        for handle, session in heirs.items():
            session.rewind(_kept(moving[handle], session))

    def _inherit(self, parents: dict[Handle, Session | None], leaving: set[Session]) -> dict[Handle, Session]:
        """Rows that take over the session of their parent, which no longer has a row of its own."""
        heirs: dict[Handle, Session] = {}
        for handle, parent in parents.items():
            if parent in leaving and parent not in heirs.values():
                heirs[handle] = self._rows[handle] = parent
        return heirs

    def _copy(self, extend: Extend, parent: Session | None) -> Session:
        """A session that holds what the row begins with."""
        pool = self._pool(extend.model)
        if parent is None:
            return Session(pool.model, capacity=pool.capacity, chunk=self._chunk, window=self._window, pool=pool)
        return parent.fork(_kept(extend, parent), pool=pool)

    def _reserve(self, models: Sequence[int]) -> None:
        """Free slots for a row of each of these models."""
        for number, rows in Counter(models).items():
            self._pool(number).reserve_slots(rows)

    def _pool(self, number: int) -> Pool:
        if number >= len(self._models):
            raise GenerationError(
                f"the search asks for model {number}, and {len(self._models) - 1} assistants were given; give it one"
            )
        model = self._models[number]
        capacity = min(self._capacity, model.context)
        if model not in self._pools:
            self._pools[model] = Pool(model, capacity=capacity)
        self._pools[model].reserve(capacity)
        return self._pools[model]

    def _session(self, model: int, row: int) -> Session:
        if (model, row) not in self._rows:
            raise GenerationError(f"the search asks for row {row} of model {model}, which it has not made or released")
        return self._rows[model, row]


def _kept(extend: Extend, parent: Session) -> int:
    """How much of what its parent holds a row begins with; a search counts what a window has forgotten, too."""
    if extend.length < 0:
        return parent.length
    kept = extend.length - parent.forgotten
    if parent.window and parent.forgotten and kept < parent.window.sinks:
        raise GenerationError(f"cannot go back to {extend.length} tokens: the window has forgotten {parent.forgotten}")
    if kept > parent.length:
        raise GenerationError(f"cannot copy {extend.length} tokens: the session holds {parent.length}")
    return kept
