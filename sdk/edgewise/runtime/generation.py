"""sdk, runtime: what a generation can be asked for, and what names and texts among it become."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from edgewise.errors import OptionError
from edgewise.options import unknown
from edgewise.runtime.window import Window
from edgewise.search.named import Named, bound, named
from edgewise.search.protocol import Processor, Search, Vocabulary
from edgewise.search.stops import StopRule, StopStrings
from edgewise.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner


class Options(TypedDict, total=False):
    """The keyword arguments of `Runner.generate`, `stream` and `chat`; each can be left out, or None.

    Searches, processors and rules are objects, or names of registered ones, or tables with a name and options:
    `{"name": "sample", "temperature": 0.7}`.
    """

    max_tokens: int | None  # new tokens at most; by default 256, or what is left of the context
    search: Search | Named | None  # by default what the checkpoint's generation config asks for
    seed: int | None  # the same seed gives the same output
    stop: str | Sequence[str | StopRule | Mapping[str, Any]] | None  # texts (and rules) that end it
    time_limit: float | None  # seconds; it is looked at after each token
    processors: Sequence[Processor | Named] | None  # applied to the scores in this order
    n: int | None  # so many independent samples of one prompt
    logprobs: int | None  # log-probabilities of each chosen token, and of so many of the most probable ones
    overflow: Window | Named | None  # what happens when the context is full: by default an error, or "window"
    assistants: Sequence["Runner"] | None  # models 1, 2, ... of a search that asks for them: a draft, an amateur


Rule = tuple[str, Callable[[Any], bool]]  # what a value must be, and whether it is


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _at_least(least: int) -> Rule:
    return f"{least} or {'above' if least == 0 else 'more'}, and a whole number", (
        lambda value: _whole(value) and value >= least
    )


def _several(what: str, fits: Callable[[Any], bool]) -> Rule:
    """A list, which can be gone through again for the next prompt; an iterator cannot."""
    return f"a list of {what}", (
        lambda value: isinstance(value, Sequence) and not isinstance(value, str | bytes) and all(map(fits, value))
    )


def _part(method: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str | Mapping) or callable(getattr(value, method, None))


_STOPS, _ARE_STOPS = _several("texts, stop rules, and tables with the name of one", _part("check"))
VALUES: dict[str, Rule] = {
    "max_tokens": _at_least(1),
    "seed": _at_least(0),
    "n": _at_least(1),
    "logprobs": _at_least(0),
    "time_limit": (
        "more than 0 seconds, and a number",
        lambda value: (_whole(value) or isinstance(value, float | np.floating)) and float(value) > 0,
    ),
    "stop": (f"a text, or {_STOPS}", lambda value: isinstance(value, str) or _ARE_STOPS(value)),
    "processors": _several("processors, their names, and tables with the name of one", _part("advance")),
    "overflow": (
        "'window', or a table with that name and options, or a Window",
        lambda value: isinstance(value, str | Mapping | Window),
    ),
    "assistants": _several("runners", lambda value: isinstance(getattr(value, "tokenizer", None), Tokenizer)),
}
OPENING: dict[str, Rule] = dict.fromkeys(("threads", "context", "prefix_cache"), ("a whole number", _whole))


def check_options(options: Mapping[str, Any]) -> None:
    """Raises OptionError for an option that no generation has, and for a value that it cannot have."""
    for key in options:
        if key not in Options.__annotations__:
            raise OptionError(unknown("option of a generation", key, Options.__annotations__))
    _check_values(options, VALUES)


def check_open(**values: int | None) -> None:
    """Raises OptionError for what a runner cannot be opened with."""
    _check_values(values, OPENING)


def _check_values(options: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Hold values to what they must be; None is for the default."""
    for key, (what, fits) in rules.items():
        value = options.get(key)
        if value is not None and not fits(value):
            raise OptionError(f"{key} is {value!r}; it must be {what}")


def find_processors(given: Iterable[Processor | Named], vocabulary: Vocabulary) -> tuple[Processor, ...]:
    """Processors as they were given, by name or not, in order."""
    from edgewise.registry import registry

    return tuple(
        bound(named(each, registry().processors, "processor") if isinstance(each, str | Mapping) else each, vocabulary)
        for each in given
    )


def find_rules(
    stop: str | Sequence[str | StopRule | Mapping[str, Any]] | None, vocabulary: Vocabulary
) -> list[StopRule]:
    """Stop rules: texts are one rule together; rules by name are tables."""
    from edgewise.registry import registry

    given = (stop,) if isinstance(stop, str) else tuple(stop or ())
    strings = tuple(rule for rule in given if isinstance(rule, str))
    rules: list[StopRule] = [StopStrings(strings)] if strings else []
    for rule in given:
        if not isinstance(rule, str):
            found = named(rule, registry().stop_rules, "stop rule") if isinstance(rule, Mapping) else rule
            rules.append(bound(found, vocabulary))
    return rules
