"""sdk, bench: how fast memory can be read here, and how much of it a decode step has to read.

A decode step reads every weight once, so memory bounds its speed: tokens/s <= bandwidth / bytes. How close a bundle
comes to that says what is left to gain on this machine.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from edgewise.bundle.manifest import Manifest

BYTES = 1 << 28  # that a thread reads at a time: several times what caches hold
RUNS = 5
ONE_ROW = ("embedding", "tables")  # of these a token reads a row


def bandwidth(threads: int, *, bytes_each: int = BYTES, runs: int = RUNS) -> float:
    """Bytes a second that so many threads read from memory together: the best of some runs.

    Each takes the maximum of its own array of int32, the fastest that numpy reads; it does so without the
    interpreter's lock.
    """
    arrays = [np.ones(bytes_each // 4, np.int32) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return bytes_each * threads / min(_seconds(lambda: list(pool.map(np.max, arrays))) for _ in range(runs))


def bytes_per_token(manifest: "Manifest", length: int) -> int | None:
    """Bytes that a decode step reads at least: the weights, and the keys and values of `length` tokens.

    Of experts it reads those that a token is given to.

    None where the bundle's card does not say how large its parts are.
    """
    parts = manifest.card.get("parts")
    if not parts:
        return None
    read = {"expert": manifest.language_model.active_experts}
    kept = [name for name in parts if name not in ONE_ROW or (name == "embedding" and manifest.language_model.tied)]
    cache = manifest.language_model.cache_bytes(length)
    return int(sum(parts[name]["after"] * read.get(name, 1) for name in kept) + cache)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
