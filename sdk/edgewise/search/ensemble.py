"""sdk, search: an ensemble: each token is chosen by the mean of several models, or of several prompts of one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.search.bias import check_tokens
from edgewise.search.logprobs import log_sum_exp
from edgewise.search.mirror import Companion, mirror
from edgewise.search.named import Named, find_search
from edgewise.search.protocol import Context, FloatArray, Flow, Search, Vocabulary


@dataclass(frozen=True, kw_only=True)
class Ensemble(Search):
    """Another search on the mean of what the model, its assistants, and other prompts give each token.

    The members are the model, then `prompts` (the same question put in other words), then the assistants. The mean is
    of probabilities, or with `mean = "logprob"` of their logarithms (a product of experts), by `weights`.
    """

    name: ClassVar[str] = "ensemble"
    assistants: ClassVar[int] = 15
    search: Search | Named = "greedy"
    prompts: tuple[str | tuple[int, ...], ...] = ()
    mean: Literal["probability", "logprob"] = "probability"
    weights: tuple[float, ...] = ()  # of the members; none: all alike

    def __post_init__(self) -> None:
        if any(not weight >= 0 or math.isinf(weight) for weight in self.weights) or (
            self.weights and not sum(self.weights)
        ):
            raise OptionError(f"weights are {list(self.weights)}; they must be 0 or more, and not all of them 0")
        if any(not prompt for prompt in self.prompts):
            raise OptionError("a prompt of the ensemble is empty")

    def bind(self, vocabulary: Vocabulary) -> Self:
        prompts = tuple(vocabulary.encode_prompt(each) if isinstance(each, str) else each for each in self.prompts)
        for prompt in prompts:
            check_tokens(prompt, vocabulary.size)
        return replace(self, search=find_search(self.search, vocabulary), prompts=prompts)

    def flow(self, context: Context) -> Flow:
        if not isinstance(self.search, Search):
            raise GenerationError(f"search '{self.name}' has not been bound to a vocabulary")
        for number, room in enumerate(context.assistants, 1):
            if (tokens := len(context.prompt) + context.limit) > room:
                raise ContextOverflow(f"{tokens:,} tokens do not fit in the context of assistant {number}, {room:,}")
        companions = [
            *(Companion(prompt=context.prompt, instead=tuple(map(int, prompt))) for prompt in self.prompts),
            *(Companion(model=number) for number in range(1, len(context.assistants) + 1)),
        ]
        if not companions:
            raise OptionError(f"search '{self.name}' has one member; give it prompts, or other bundles as assistants")
        shares = self._shares(len(companions) + 1)
        return mirror(self.search.flow(context), lambda own, others: self._mean([own, *others], shares), *companions)

    def _shares(self, members: int) -> list[float]:
        if self.weights and len(self.weights) != members:
            raise OptionError(f"weights are given: {len(self.weights)}; the ensemble has {members} members")
        weights = self.weights or (1.0,) * members
        return [weight / sum(weights) for weight in weights]

    def _mean(self, scores: Sequence[FloatArray], shares: Sequence[float]) -> FloatArray:
        """Log-probabilities of the mean, `[positions, vocabulary]`, in the array of the first member."""
        size = min(each.shape[1] for each in scores)  # members may know tokens that do not exist
        own = scores[0]
        for place in range(len(own)):
            terms = [each[place, :size] - log_sum_exp(each[place, :size]) for each in scores]
            if self.mean == "logprob":
                total = sum(share * term for share, term in zip(shares, terms, strict=True) if share)
            else:
                probability = sum(share * np.exp(term) for share, term in zip(shares, terms, strict=True))
                with np.errstate(divide="ignore"):
                    total = np.log(probability)
            own[place, :size] = total
            own[place, size:] = -np.inf
        return own
