"""sdk, calibration: the text that a model is calibrated or judged on, as sequences of tokens of one length."""

import logging
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewise import strictjson
from edgewise.errors import OptionError
from edgewise.options import check
from edgewise.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

PASSAGE = 16_384  # characters that stay together
LARGEST = 256 << 20  # bytes; a budget of 32,768 tokens needs about a thousandth of it


@dataclass(frozen=True)
class CalibrationText:
    """A text and how much of it is taken: `tokens` in all, in sequences of `length`.

    path: a file of text; one of JSON lines (`.jsonl`), each with a "text"; or a folder of such files.
    seed: which passages are taken, where the text has more than enough.
    """

    path: Path
    tokens: int = 32_768
    length: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        check(self)
        if self.length < 2:
            raise OptionError(f"length: {self.length} is too short; expected at least 2 tokens")
        if self.tokens < self.length:
            raise OptionError(f"tokens: {self.tokens} is less than one sequence of {self.length}")

    def sequences(self, tokenizer: Tokenizer) -> np.ndarray:
        """Sequences as a session would get them, int64 `[n, length]`: what the tokenizer puts first comes first.

        The text is cut into passages, which are shuffled and packed one after the other. A text that is shorter than
        asked is used up, with a warning; one that is shorter than a sequence is refused. Raises OptionError.
        """
        first, last = _around(tokenizer)
        width, wanted = self.length - len(first), self.tokens // self.length
        if width < 1:
            raise OptionError(f"length: {self.length} has no room beside {len(first)} tokens at the start")
        stream: list[int] = []
        for passage in self._passages():
            stream += tokenizer.encode(passage)[len(first) : -last or None]
            if len(stream) >= wanted * width:
                break
        count = min(wanted, len(stream) // width)
        if not count:
            raise OptionError(
                f"text {self.path} has {len(stream):,} tokens, and a sequence takes {width:,}: "
                "give more text, or ask for shorter sequences"
            )
        if count < wanted:
            logger.warning("text %s: %d sequences, of %d asked for", self.path, count, wanted)
        windows = np.array(stream[: count * width], np.int64).reshape(count, width)
        return np.concatenate([np.tile(np.array(first, np.int64), (count, 1)), windows], axis=1)

    def _passages(self) -> list[str]:
        found = list(passages(self.path))
        random.Random(self.seed).shuffle(found)
        return found


def passages(path: Path) -> Iterator[str]:
    """The whole text of a file or a folder, a passage at a time, in order. Raises OptionError."""
    for text in _texts(path):
        yield from _cut(text)


def _around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], int]:
    """The tokens that begin every text, and how many end it."""
    nothing, something = tokenizer.encode(""), tokenizer.encode("a")
    first = 0
    while first < len(nothing) and nothing[first] == something[first]:
        first += 1
    return nothing[:first], len(nothing) - first


def _cut(text: str) -> Iterator[str]:
    """Passages of a text, which end with a line where there is one."""
    start = 0
    while start < len(text):
        stop = start + PASSAGE
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop


def _texts(path: Path) -> Iterator[str]:
    if not path.exists():
        raise OptionError(f"text {path} does not exist; expected a file, or a folder of files")
    files = _files(path) if path.is_dir() else [path]
    if (size := sum(file.stat().st_size for file in files)) > LARGEST:
        raise OptionError(f"text {path} has {size:,} bytes; at most {LARGEST:,} are read: give less")
    for file in files:
        content = _read(file)
        if file.suffix == ".jsonl":
            yield from _lines(file, content)
        else:
            yield content


def _files(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, by name; hidden ones are not text."""
    inside = (path.relative_to(folder) for path in folder.rglob("*"))
    files = [folder / path for path in inside if not any(part.startswith(".") for part in path.parts)]
    return sorted(file for file in files if file.is_file())


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"text {file} is not UTF-8 text (byte {error.start:,})") from error
    except OSError as error:
        raise OptionError(f"text {file} cannot be read: {error.strerror}") from error


def _lines(file: Path, content: str) -> Iterator[str]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text = strictjson.loads_object(line.encode()).get("text")
        except ValueError as error:
            raise OptionError(f"text {file}, line {number}: {error}") from error
        if not isinstance(text, str):
            raise OptionError(f'text {file}, line {number}: expected an object with a "text"')
        yield text
