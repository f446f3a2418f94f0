"""sdk, search: contrastive decoding (arXiv 2210.15097, 2309.09117): an expert without the habits of an amateur."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.search.guided import Guided
from edgewise.search.mirror import Companion, mirror
from edgewise.search.named import Named, find_search
from edgewise.search.protocol import Context, FloatArray, Flow, Search, Vocabulary

FAR = np.float32(1e5)  # below all scores: no such token is drawn while there is another


@dataclass(frozen=True, kw_only=True)
class Amateur(Search):
    """Another search, led away from what a smaller model of the same tokenizer would say: the first assistant.

    Scores are (1 + beta) * expert - beta * amateur, of the tokens to which the expert gives at least `alpha` times
    the probability of its best one; others come only where processors leave none of these, by what the expert gives
    them. They come before processors, and `logprobs` tells of them.
    """

    name: ClassVar[str] = "amateur"
    assistants: ClassVar[int] = 1
    search: Search | Named = "greedy"
    alpha: float = 0.1
    beta: float | None = 0.5  # None: expert - amateur, the form of the first paper

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise OptionError(f"alpha is {self.alpha}; it must be from 0 (all tokens) to 1 (the best one)")
        if self.beta is not None and not 0 <= self.beta < math.inf:
            raise OptionError(f"beta is {self.beta}; it must be 0 (no amateur) or above")

    def bind(self, vocabulary: Vocabulary) -> Self:
        search = find_search(self.search, vocabulary)
        if isinstance(search, Guided):  # it would lead towards whatever is implausible after its negative prompt
            raise OptionError(
                "search 'guided' goes around 'amateur', not into it: give amateur as the search of guided"
            )
        return replace(self, search=search)

    def flow(self, context: Context) -> Flow:
        if not isinstance(self.search, Search):
            raise GenerationError(f"search '{self.name}' has not been bound to a vocabulary")
        if not context.assistants:
            raise OptionError(f"search '{self.name}' needs a smaller bundle to lead away from; give it as an assistant")
        if (tokens := len(context.prompt) + context.limit) > context.assistants[0]:
            raise ContextOverflow(f"{tokens:,} tokens do not fit in the amateur's context of {context.assistants[0]:,}")
        return mirror(self.search.flow(context), self._contrast, Companion(model=1))

    def _contrast(self, expert: FloatArray, others: Sequence[FloatArray]) -> FloatArray:
        """Of both `[positions, vocabulary]`; the amateur may know fewer tokens (or more) that do not exist."""
        (amateur,) = others
        size = min(expert.shape[1], amateur.shape[1])
        threshold = expert.max(axis=1, keepdims=True) + np.float32(math.log(self.alpha) if self.alpha else -math.inf)
        implausible = expert < threshold
        far = expert[implausible] - FAR
        expert *= 1 if self.beta is None else 1 + self.beta
        expert[:, :size] -= amateur[:, :size] * np.float32(1 if self.beta is None else self.beta)
        expert[implausible] = far
        expert[:, size:] = -np.inf
        return expert
