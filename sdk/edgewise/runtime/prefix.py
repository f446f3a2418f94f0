"""sdk, runtime: keys and values of prompts that were computed before, by blocks of tokens, for all generations."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Event, Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import CacheError, OptionError
from edgewise.runtime import saved
from edgewise.runtime.model import Model
from edgewise.runtime.session import Session

Key = bytes
Arrays = list[NDArray[Any]]  # keys and values as `Session.export` gives them
Export = Callable[[int, int], Arrays]  # of positions start to stop

LIMIT = 256 << 20  # bytes, by default: 10,000 tokens of a model of half a billion weights, 4,000 of one of a billion
KEY_BYTES = 32


class PrefixCache:
    """Copies of the keys and values of prompts; the least recently used go where `limit` bytes are not enough.

    A block is one chunk of a prefill, counted from the beginning of the prompt, and its key is a hash of all tokens up
    to its end. So what is restored is what the same computation gave before, the rest is computed in the chunks that
    it would be computed in without, and the output is the same to the bit. (But for graphs of free lengths that
    append to a cache: their sums depend on how long its buffers are, in the last digits.)
    It serves sessions of one model, in any number of threads.
    """

    def __init__(self, model: Model, *, limit: int, block: int | None = None) -> None:
        if limit < 0:
            raise OptionError(f"prefix_cache is {limit:,}; it must be a number of bytes, 0 for none")
        self.model = model
        self.limit = limit
        self.block = block or model.chunk
        self._block_bytes = model.facts.cache_bytes(self.block)
        self._blocks: OrderedDict[Key, Arrays] = OrderedDict()  # the least recently used first
        self._lock = Lock()

    @property
    def bytes(self) -> int:
        """Memory of all blocks."""
        return len(self._blocks) * self._block_bytes

    def restore(self, session: Session, tokens: Sequence[int]) -> int:
        """Bring as many of the first tokens as are known into an empty session, never the last one; how many."""
        if not self._serves(session):
            return 0
        blocks = self._use(self._keys(tokens[:-1]))
        for number, block in enumerate(blocks):
            session.restore(tokens[number * self.block : (number + 1) * self.block], block)
        return session.length

    def known(self, tokens: Sequence[int]) -> int:
        """How many of the first of these tokens are known."""
        return len(self._use(self._keys(tokens))) * self.block

    def store(self, session: Session, length: int | None = None) -> None:
        """Copy the whole blocks of a session's first tokens, or all, appended at once (after what was restored).

        Where rings have lost a block, what comes after it is not of use.
        """
        if self._serves(session):
            self.add(session.tokens[:length], session.export, first=session.remembered)

    def add(self, tokens: Sequence[int] | NDArray[np.int64], export: Export, *, first: int = 0) -> int:
        """Keep the whole blocks of these tokens, or as many as fit from the first on; how many tokens those are.

        Those that are not known yet are exported; `first` is the first position that can be.
        """
        keys = self._keys(tokens)[: self.limit // self._block_bytes]
        known = len(self._use(keys))
        if known < len(keys) and known * self.block < first:
            return known * self.block
        new = {
            key: export(number * self.block, (number + 1) * self.block)
            for number, key in enumerate(keys)
            if number >= known
        }
        with self._lock:
            self._blocks |= new
            self._touch(keys)
            while self.bytes > self.limit:
                self._blocks.popitem(last=False)
        return len(keys) * self.block

    def prepare(self, tokens: Sequence[int], *, stop: Event | None = None) -> Session | None:
        """Compute the whole blocks of these tokens that are not known; a session with all of them, if there are any.

        Once `stop` is set, it ends after the block that it computes. Raises what a prefill raises.
        """
        computed, session = self._computed(tokens), None
        while not (stop and stop.is_set()) and (longer := next(computed, None)):
            session = longer
        return session

    def save(self, path: str | Path, tokens: Sequence[int]) -> int:
        """Write the whole blocks of these tokens to a file; how many tokens. Raises CacheError, and as `prepare`."""
        blocks = [session.export(session.length - self.block, session.length) for session in self._computed(tokens)]
        if not blocks:
            raise CacheError(f"{path} is not written: {len(tokens)} tokens are less than a block of {self.block}")
        count = len(blocks) * self.block
        held = [np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True)]
        saved.save(path, self.model, saved.Saved(np.asarray(tokens[:count], np.int64), held, self.block))
        return count

    def _computed(self, tokens: Sequence[int]) -> Iterator[Session]:
        """A session after each of the whole blocks of these tokens; those that are known are not computed."""
        count = len(tokens) // self.block * self.block
        if not count:
            return
        session = Session(self.model, capacity=count, chunk=self.block)
        known = self._use(self._keys(tokens))
        for start in range(0, count, self.block):
            block, number = tokens[start : start + self.block], start // self.block
            if number < len(known):
                session.restore(block, known[number])
            else:
                session.prefill(block, scores=0)
                self.store(session)
            yield session

    def load(self, path: str | Path) -> int:
        """Keep the blocks of a file that `save` wrote; how many tokens.

        Raises CacheError, and OptionError where they are more than the limit.
        """
        found = saved.load(path, self.model)
        if found.block != self.block:
            raise CacheError(f"{path}: it is of a session; of use here are prompts, in blocks of {self.block} tokens")
        if (size := len(found.tokens) // self.block * self._block_bytes) > self.limit:
            raise OptionError(f"{path} takes {size:,} bytes of memory, and prefix_cache is {self.limit:,}")
        return self.add(found.tokens, lambda start, stop: [array[:, start:stop].copy() for array in found.arrays])

    def _serves(self, session: Session) -> bool:
        return session.model is self.model and session.chunk == self.block

    def _keys(self, tokens: Sequence[int] | NDArray[np.int64]) -> list[Key]:
        """Of each whole block."""
        ids, chain, keys = np.asarray(tokens, np.int64), blake2b(digest_size=KEY_BYTES), []
        for start in range(0, len(ids) - self.block + 1, self.block):
            chain.update(ids[start : start + self.block].tobytes())
            keys.append(chain.digest())
        return keys

    def _use(self, keys: Sequence[Key]) -> list[Arrays]:
        """The blocks that are there, up to the first that is not."""
        blocks = []
        with self._lock:
            for key in keys:
                if key not in self._blocks:
                    break
                blocks.append(self._blocks[key])
            self._touch(keys[: len(blocks)])
        return blocks

    def _touch(self, keys: Sequence[Key]) -> None:
        """Used just now: a block later than those after it, which are of no use without it."""
        for key in reversed(keys):
            if key in self._blocks:  # another thread may have needed the room
                self._blocks.move_to_end(key)
