"""sdk, runtime: prompts that an encoder reads: each is computed once, for all that answer it."""

from collections import OrderedDict
from threading import Lock

from edgewise.runtime.model import Model

Tokens = tuple[int, ...]


class Sources:
    """Decoders that know a prompt; those of the latest prompts stay known, up to `limit` bytes of keys and values."""

    def __init__(self, model: Model, *, limit: int) -> None:
        self._model = model
        self._limit = limit
        self._given: OrderedDict[Tokens, Model] = OrderedDict()  # the latest last
        self._lock = Lock()

    def of(self, source: Tokens) -> Model:
        """The decoder of answers to a prompt, which is computed when the first of them is."""
        with self._lock:
            model = self._given.setdefault(source, self._model.given(source))
            self._given.move_to_end(source)
            while self._bytes > self._limit:
                self._given.popitem(last=False)
        return model

    def prepare(self, source: Tokens) -> int:
        """Compute a prompt now; how many tokens."""
        _ = self.of(source).crossed
        return len(source)

    def known(self, source: Tokens) -> int:
        """How many tokens of a prompt need not be computed: all, or none."""
        with self._lock:
            model = self._given.get(source)
        return len(source) if model and model.is_read else 0

    @property
    def _bytes(self) -> int:
        return sum(map(self._model.facts.cache_bytes, map(len, self._given)))
