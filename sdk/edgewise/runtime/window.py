"""sdk, runtime: endless generation: the first tokens stay as attention sinks, and of the rest the latest.

StreamingLLM (arXiv 2309.17453). Positions are those in the cache, as in the paper: what stays moves up. The cache holds
keys after their rotary embedding, so they are turned, from the angles of the position where they were to those of the
position where they are now. What scales a table cancels. Keys in int8 are turned as they are, since both channels of a
pair have one scale, and rounded again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.facts import Facts, Rotary
from edgewise.options import check, parse, unknown
from edgewise.rotary import tables
from edgewise.runtime.element import narrowed, widened
from edgewise.runtime.model import Model

Tokens = tuple[int, ...]
Array = NDArray[Any]
Angles = tuple[NDArray[np.float32], NDArray[np.float32]]  # cos and sin, [positions, dim / 2]

STEPS = 127  # of int8: as many on both sides of 0


@dataclass(frozen=True)
class Window:
    """What happens when a context is full: `drop` tokens after the first `sinks` are forgotten, and so on.

    `drop`: an eighth of the context, unless it is given. Give `sinks` the length of instructions that shall stay.
    """

    sinks: int = 4
    drop: int | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.sinks < 0:
            raise OptionError(f"sinks is {self.sinks}; it must be 0 or above")
        if self.drop is not None and self.drop < 1:
            raise OptionError(f"drop is {self.drop}; it must be 1 or above")

    @classmethod
    def of(cls, given: "Window | str | Mapping[str, Any] | None") -> "Window | None":
        """The option as it may be given: an instance, its name, or a table of its name and options."""
        if given is None or isinstance(given, Window):
            return given
        options = {"name": given} if isinstance(given, str) else dict(given)
        if (name := options.pop("name", None)) != "window":
            raise OptionError(unknown("overflow policy", str(name), ["window"]))
        return parse(cls, options, what="overflow")

    def excess(self, length: int, new: int, context: int) -> int:
        """How many of `length` tokens have to go, so that `new` ones fit. Raises ContextOverflow where none can."""
        if length + new <= context:
            return 0
        least = length + new - context
        dropped = min(max(least, self._drop(context)), length - self.sinks)
        if dropped < least:
            raise ContextOverflow(
                f"{new} tokens do not fit in the context of {context} beside the {self.sinks} that stay in its window"
            )
        return dropped

    def cut(self, prompt: Tokens, context: int) -> tuple[Tokens, int]:
        """A prompt that leaves room for an answer, and how many tokens it lost: one that fits loses none.

        The first `sinks` tokens stay, and the last ones; `drop` less than the context in all.
        """
        kept = context - self._drop(context)
        if len(prompt) < context:
            return prompt, 0
        last = len(prompt) - (kept - self.sinks)
        return prompt[: self.sinks] + prompt[last:], last - self.sinks

    def _drop(self, context: int) -> int:
        drop = max(1, context // 8) if self.drop is None else self.drop
        if self.sinks + drop >= context:
            raise OptionError(
                f"a window that keeps {self.sinks} sinks and drops {drop} tokens needs a context of more than "
                f"{self.sinks + drop}; it is {context}"
            )
        return drop


def refuse_unmovable(facts: Facts) -> None:
    """Raises GenerationError for a model whose keys and values hold their positions, or may, in an unknown way."""
    if facts.learned_positions or not facts.stated:
        why = "adds learned positions to its embedding" if facts.learned_positions else "does not say how it knows them"
        raise GenerationError(
            f"a full context cannot go on with a window: the model ({facts.model_type}) {why}, so what is held cannot "
            "move to other positions; leave out the overflow policy, or take a larger context"
        )


def turn_back(model: Model, start: int, stop: int, length: int) -> Callable[[int, Array], Array]:
    """What the keys and values of the positions `stop` to `length` are at the positions from `start` on.

    The function takes the number of a tensor of `model.cache`, and its part, `[heads, positions, dim]`: all of these
    positions, or the last of them.
    """
    turns = {
        name: _turn(rotary, model.table_context, start, stop, length) for name, rotary in model.facts.rotary.items()
    }

    def moved(number: int, array: Array) -> Array:
        layer, is_value = divmod(number, 2)
        name = model.facts.attention[layer].rotary
        if is_value or name is None:
            return array
        return _like(array, turned(array, model.facts.rotary[name], turns[name]))

    return moved


def turned(keys: Array, rotary: Rotary, turn: Angles) -> NDArray[np.float32]:
    """Keys `[heads, positions, dim]`, with the pairs that the embedding turns turned by the last of these angles."""
    out = widened(keys)
    pairs = out[..., : rotary.dim]
    half = rotary.dim // 2
    a, b = (pairs[..., ::2], pairs[..., 1::2]) if rotary.interleaved else (pairs[..., :half], pairs[..., half:])
    cos, sin = (angles[len(angles) - keys.shape[1] :] for angles in turn)
    a[...], b[...] = a * cos - b * sin, a * sin + b * cos
    return out


def _turn(rotary: Rotary, context: int, start: int, stop: int, length: int) -> Angles:
    """From each position to that which is as far behind it as `start` is behind `stop`.

    By division of the table's own numbers, whose angles are rounded; what scales them (an attention factor) cancels.
    """
    cos, sin = tables(rotary, context)
    to_cos, to_sin = (table[start : start + length - stop] for table in (cos, sin))
    cos, sin = cos[stop:length], sin[stop:length]
    size: NDArray[np.float32] = cos * cos + sin * sin
    turns = (to_cos * cos + to_sin * sin) / size, (to_sin * cos - to_cos * sin) / size
    return turns[0].astype(np.float32), turns[1].astype(np.float32)


def _like(before: Array, after: NDArray[np.float32]) -> Array:
    """As the cache keeps it."""
    if before.dtype == np.int8:
        after = np.clip(np.rint(after), -STEPS, STEPS)
    return narrowed(after, before.dtype)
