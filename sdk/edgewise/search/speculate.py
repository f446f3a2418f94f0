"""sdk, search: speculative decoding: how a text goes on is guessed, and several guesses are checked in one step."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from edgewise.errors import OptionError
from edgewise.search.ahead import Speculation, ahead
from edgewise.search.draft import Draft
from edgewise.search.lookup import Lookup
from edgewise.search.named import find_search
from edgewise.search.pace import Pace
from edgewise.search.protocol import Context, Flow, Search, Vocabulary
from edgewise.search.residual import Drawn, residual
from edgewise.search.stepwise import Stepwise

WIDEST = 24  # a step stays shorter than what a bundle's graph for long prompts computes


@dataclass(frozen=True, kw_only=True)
class Speculative(Search):
    """Gives what a search gives, in fewer steps. Drafts are an assistant's, or else what the text said before.

    Tokens are those that the search itself chooses; kernels that round a step of several tokens differently (4 bits)
    may lead it elsewhere. Only where an assistant drafts for a search that draws, and no seed asks for
    the same tokens again (or `width` is given), drafts are drawn too: more of them are accepted, and what is the same
    is the distribution.
    """

    name: ClassVar[str] = "speculative"
    assistants: ClassVar[int] = 1
    search: Search | str | Mapping[str, Any] = "greedy"
    width: int | None = None  # tokens that are drafted, always; None: as many as pay, which is measured, down to none

    def __post_init__(self) -> None:
        if self.width is not None and not 1 <= self.width <= WIDEST:
            raise OptionError(f"width is {self.width}; it must be from 1 to {WIDEST}, or not given: it adapts")
        if isinstance(self.search, Search) and not isinstance(self.search, Stepwise):
            raise OptionError(
                f"search '{self.search.name}' cannot be sped up by speculation: that is for searches of one row that "
                "choose token by token, such as greedy and sample"
            )

    def bind(self, vocabulary: Vocabulary) -> Self:
        return replace(self, search=find_search(self.search, vocabulary))

    def flow(self, context: Context) -> Flow:
        search = self.search
        if not isinstance(search, Stepwise):
            raise OptionError(f"search {search!r} is not bound yet; the runner does that, or bind()")
        if context.forgets:
            raise OptionError(
                "search 'speculative' takes drafts back, and overflow 'window' forgets tokens for good: give one"
            )
        pace = Pace(self.width)
        if not context.assistants:
            return ahead(search.flow(context), context, Speculation(Lookup(), pace))
        if self._draws(search, context):
            drawn = Drawn(search, context.rng)
            return residual(search, context, Speculation(Draft(context, drawn), pace), drawn)
        return ahead(search.flow(context), context, Speculation(Draft(context), pace))

    def _draws(self, search: Stepwise, context: Context) -> bool:
        """Whether drafts are drawn: then the tokens depend on how wide drafts are, and that on the clock."""
        plain = type(search).choose is Stepwise.choose and not search.stateful
        return plain and (self.width is not None or not context.repeatable)
