"""sdk, calibration: how far work has come that is done step by step: hashes of what is on disk, to go on from."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import blake3

from edgewise import strictjson

JOURNAL = "journal.json"
CHUNK = 1 << 22


@dataclass(frozen=True)
class Journal:
    """The hash of each step that is done, and those of the hidden states to go on from, by their place in the folder.

    A step fills a part of one file. `counts` are numbers that whoever goes on has to know.
    """

    steps: tuple[str, ...] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Take the place of the one before, whole or not at all."""
        partial = folder / f"{JOURNAL}.partial"
        partial.write_text(json.dumps(dataclasses.asdict(self)))
        partial.replace(folder / JOURNAL)


def read_journal(folder: Path, file: str, parts: Sequence[tuple[int, int]]) -> Journal:
    """What an earlier process did in a folder, if all of it is still as it was; else an empty journal.

    parts: from where to where each step reaches in the file of that name.
    """
    try:
        table = strictjson.loads_object((folder / JOURNAL).read_bytes())
        journal = Journal(tuple(table["steps"]), dict(table["hidden"]), dict(table["counts"]))
        steps = (digest(folder / file, *part) for part in parts[: len(journal.steps)])
        hidden = (digest(folder / name) for name in journal.hidden)
        if tuple(steps) == journal.steps and tuple(hidden) == tuple(journal.hidden.values()):
            return journal
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Journal()


def digest(path: Path, start: int = 0, stop: int | None = None) -> str:
    """BLAKE3 of a file, or of a part of it."""
    found = blake3.blake3(max_threads=blake3.blake3.AUTO)
    left = path.stat().st_size - start if stop is None else stop - start
    with path.open("rb") as file:
        file.seek(start)
        while left > 0 and (chunk := file.read(min(left, CHUNK))):
            found.update(chunk)
            left -= len(chunk)
    return found.hexdigest()
