"""sdk, runtime: what a generation can be asked for, and what names and texts among it become."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from edgewise.errors import OptionError
from edgewise.options import unknown
from edgewise.runtime.window import Window
from edgewise.search.named import Named, bound, named
from edgewise.search.protocol import Processor, Search, Vocabulary
from edgewise.search.stops import StopRule, StopStrings

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
    stop: str | Iterable[str | StopRule | Mapping[str, Any]] | None  # texts (and rules) that end it
    time_limit: float | None  # seconds; it is looked at after each token
    processors: Iterable[Processor | Named] | None  # applied to the scores in this order
    n: int | None  # so many independent samples of one prompt
    logprobs: int | None  # log-probabilities of each chosen token, and of so many of the most probable ones
    overflow: Window | Named | None  # what happens when the context is full: by default an error, or "window"
    assistants: Sequence["Runner"] | None  # models 1, 2, ... of a search that asks for them: a draft, an amateur


def check_names(options: Mapping[str, Any]) -> None:
    """Raises OptionError for an option that no generation has."""
    for key in options:
        if key not in Options.__annotations__:
            raise OptionError(unknown("option of a generation", key, Options.__annotations__))


def find_processors(given: Iterable[Processor | Named], vocabulary: Vocabulary) -> tuple[Processor, ...]:
    """Processors as they were given, by name or not, in order."""
    from edgewise.registry import registry

    return tuple(
        bound(named(each, registry().processors, "processor") if isinstance(each, str | Mapping) else each, vocabulary)
        for each in given
    )


def find_rules(
    stop: str | Iterable[str | StopRule | Mapping[str, Any]] | None, vocabulary: Vocabulary
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
