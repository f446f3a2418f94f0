"""sdk, bench: all that was measured of a bundle on a machine, as one record."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.bench.answer import Answer, answer
from edgewise.bench.bandwidth import bandwidth, bytes_per_token
from edgewise.bench.host import Host
from edgewise.bench.speed import RUNS, Progress, Speed, measure
from edgewise.errors import BundleError, OptionError
from edgewise.options import parse

FORMAT = 1


@dataclass(frozen=True)
class Memory:
    """What bounds decoding: bytes a second that this machine reads, and what a token needs of them."""

    bytes_per_s: float
    bytes_per_token: int | None  # None where the bundle does not say how large its parts are
    achieved: float | None  # share of the bandwidth that decoding uses, by its median


@dataclass(frozen=True)
class Report:
    """What `edgewise bench --json` prints."""

    format: int
    bundle: str
    bundle_blake3: str  # of its manifest, which has the hash of every file
    target: str
    host: Host
    threads: int
    load_s: float
    peak_memory_bytes: int | None
    speed: Speed
    memory: Memory
    answer: Answer | None = None

    @classmethod
    def read(cls, path: Path) -> "Report":
        """A report that was saved. Raises OptionError for what is none."""
        try:
            data = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise OptionError(f"{path}: {error}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise OptionError(f"{path} is not what this edgewise's `bench --json` prints (format {FORMAT})")
        return parse(cls, data, what=str(path))

    def data(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)


def bench(
    path: str | Path,
    *,
    prefill: int | None = None,
    decode: int | None = None,
    runs: int = RUNS,
    threads: int | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Open a bundle and measure it; with a prompt, also answers to it.

    Raises what `Runner.open` raises, OptionError and ContextOverflow for counts that cannot be measured.
    """
    from edgewise.bundle.read import Bundle
    from edgewise.runtime.result import peak_memory
    from edgewise.runtime.runner import Runner
    from edgewise.runtime.threads import physical_cores

    manifest = Bundle.open(path, verify=False).manifest
    used = physical_cores() if threads is None else threads
    with Runner.open(path, threads=threads, prefix_cache=0) as runner:  # each answer computes its prompt
        speed = measure(runner, prefill=prefill, decode=decode, runs=runs, progress=progress)
        answers = None
        if prompt is not None:
            answers = answer(runner, prompt, max_tokens=max_tokens, runs=runs, progress=progress)
        load_s, peak = runner.load_s, peak_memory()
    speed_of_memory = bandwidth(used)
    needed = bytes_per_token(manifest, speed.decode.tokens // 2)
    achieved = needed * speed.decode.median / speed_of_memory if needed else None
    return Report(
        format=FORMAT,
        bundle=str(path),
        bundle_blake3=_digest(Path(path)),
        target=manifest.target,
        host=Host.here(),
        threads=used,
        load_s=load_s,
        peak_memory_bytes=peak,
        speed=speed,
        memory=Memory(speed_of_memory, needed, achieved),
        answer=answers,
    )


def _digest(path: Path) -> str:
    from edgewise.bundle.manifest import DIGEST, FILE_NAME

    try:
        return str(json.loads((path / FILE_NAME).read_bytes())[DIGEST])
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(f"{path / FILE_NAME}: {error}") from error
