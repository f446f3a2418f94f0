"""sdk, runtime: many generations at once: a step of the scheduler is a step of each of them (continuous batching)."""

from collections import deque
from collections.abc import Sequence
from threading import Condition, Lock
from typing import TYPE_CHECKING, Self, Unpack

from edgewise.errors import OptionError
from edgewise.runtime.batch import Append, decode
from edgewise.runtime.drive import Steps
from edgewise.runtime.generation import Options
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.result import Piece
from edgewise.runtime.rows import Rows, Scored
from edgewise.runtime.stream import Stream
from edgewise.search.protocol import Request

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner

SLOTS = 8
WAIT_S = 0.05  # after which one who waits for another thread's step looks whether there is such a thread


class Scheduler:
    """Generations of one runner that share each run of its graph, whatever their searches are.

    `submit` gives a stream at once. A prompt waits until fewer than `slots` rows are held (a beam has several), first
    come, first served. Each step computes one token of every generation that waits for one, in one run, and then
    `chunk` tokens of the prompts, so that what is under way does not wait for a long prompt.
    What fails, or is closed, leaves the others alone.
    A generation with a seed shares steps, but no run: its output is what it is alone, to the bit. Of the others that is
    true as far as ONNX Runtime's kernels allow it (docs/batching.md).

    Reading a stream makes steps, of all generations. A server has one thread that calls `step` instead, and any number
    that submit, read and close.
    """

    def __init__(self, runner: "Runner", *, slots: int = SLOTS, chunk: int | None = None) -> None:
        self.slots = slots
        self.chunk = runner.model.chunk if chunk is None else chunk
        if self.slots < 1 or self.chunk < 1:
            raise OptionError(f"slots is {slots} and chunk is {self.chunk}; both must be 1 or more")
        self._runner = runner
        self._pools: dict[Model, Pool] = {}
        self._queue: deque[Generation] = deque()
        self._active: list[Generation] = []  # in order of admission
        self._stepping = Lock()
        self._news = Condition()  # something has come of a step

    def submit(self, prompt: str | Sequence[int], **options: Unpack[Options]) -> Stream:
        """The continuation of a prompt, once there is room for it. Options and errors are those of `Runner.stream`."""

        def enqueue(steps: Steps[None], rows: Rows) -> Generation:
            generation = Generation(self, steps, rows)
            with self._news:
                self._queue.append(generation)
            return generation

        pools = self._pools if options.get("seed") is None else None
        return self._runner.begin(prompt, options, pools=pools, chunk=self.chunk, run=enqueue)

    def step(self) -> bool:
        """One step of all generations; whether anything is left to do."""
        with self._stepping:
            self._step()
        self._tell()
        return bool(self._active or self._queue)

    def close(self) -> None:
        """Cancel all generations, and give the memory of their caches back."""
        with self._stepping:
            with self._news:
                everything = [*self._queue, *self._active]
            for generation in everything:
                generation.cancelled = True
            self._sweep()
            self._pools.clear()
        self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def wait(self, generation: "Generation") -> None:
        """Until something may have come of a generation: by a step, or by that of another thread."""
        if self._stepping.acquire(blocking=False):
            try:
                if generation.waits:
                    self._step()
            finally:
                self._stepping.release()
            self._tell()
        else:
            with self._news:
                self._news.wait_for(lambda: not generation.waits, WAIT_S)

    def sweep(self) -> None:
        """Free what cancelled generations hold: at once, or before the next step where one is under way."""
        if self._stepping.acquire(blocking=False):
            try:
                self._sweep()
            finally:
                self._stepping.release()
            self._tell()

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _step(self) -> None:
        self._sweep()
        self._admit()
        decode([append for append in self._pending() if append.single])
        self._prefill()
        for generation in self._active:
            generation.answer()
        self._active = [generation for generation in self._active if not generation.over]

    def _sweep(self) -> None:
        with self._news:
            cancelled = [generation for generation in (*self._queue, *self._active) if generation.cancelled]
            self._queue = deque(generation for generation in self._queue if not generation.cancelled)
        for generation in cancelled:
            generation.end()
        self._active = [generation for generation in self._active if not generation.over]

    def _admit(self) -> None:
        while self._queue and sum(generation.rows for generation in self._active) < self.slots:
            with self._news:
                generation = self._queue.popleft()
            generation.advance(None)
            if not generation.over:
                self._active.append(generation)

    def _pending(self) -> list[Append]:
        """What is to be computed; what a search does in the midst of its text comes before prompts."""
        ordered = sorted(self._active, key=lambda generation: not generation.begun)
        return [append for generation in ordered for append in generation.appends if not append.over]

    def _prefill(self) -> None:
        """A chunk, or a little more: in pieces as they are when a generation is alone."""
        done = 0
        for append in self._pending():
            while not append.over and done < self.chunk:
                done += append.advance()


class Generation:
    """One generation of a scheduler: the pieces that wait to be read, and what it wants computed next."""

    def __init__(self, scheduler: Scheduler, steps: Steps[None], rows: Rows) -> None:
        self.begun = False  # there was a piece
        self.over = False
        self.cancelled = False
        self.appends: tuple[Append, ...] = ()
        self._scheduler = scheduler
        self._steps = steps
        self._rows = rows
        self._request = Request()
        self._pieces: deque[Piece] = deque()
        self._problem: Exception | None = None

    @property
    def rows(self) -> int:
        """How many it holds."""
        return len(self._rows)

    @property
    def waits(self) -> bool:
        """Whether there is nothing to read, and something will come."""
        return not self.over and (self.cancelled or not self._pieces)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        while self.waits:
            self._scheduler.wait(self)
        if self._pieces and not self.cancelled:
            return self._pieces.popleft()
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem
        raise StopIteration

    def close(self) -> None:
        """Cancel it: nothing more is read, and its rows are free."""
        self.cancelled = True
        self._scheduler.sweep()

    def advance(self, scored: Scored | None) -> None:
        """Go on to the next request, and make it ready to be computed."""
        try:
            step = self._steps.send(scored)
            while isinstance(step, Piece):
                self.begun = True
                self._pieces.append(step)
                step = next(self._steps)
            self._request = step
            self.appends = self._rows.prepare(step.extend, hidden=step.hidden)
        except StopIteration:
            self.end()
        except Exception as problem:
            self._problem = problem
            self.end()

    def answer(self) -> None:
        """Give the search what it asked for, once all of it is there."""
        if not all(append.over for append in self.appends):
            return
        try:
            scored = self._rows.scored(self.appends)
        except Exception as problem:
            self._problem = problem
            self.end()
        else:
            self.advance(scored)

    def end(self) -> None:
        """Nothing more will come: the search is closed, and its rows are given back."""
        self.over = True
        self.appends = ()
        self._steps.close()
