"""sdk, search: classifier-free guidance with a negative prompt (arXiv 2306.17806).

As transformers' UnbatchedClassifierFreeGuidanceLogitsProcessor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from edgewise.errors import OptionError
from edgewise.search.bias import check_tokens
from edgewise.search.logprobs import log_sum_exp
from edgewise.search.mirror import Companion, mirror
from edgewise.search.named import Named, find_search
from edgewise.search.protocol import Context, FloatArray, Flow, Search, Vocabulary


@dataclass(frozen=True, kw_only=True)
class Guided(Search):
    """Another search, led towards the prompt and away from a negative one: each step is computed for both.

    Log-probabilities are `negative + scale * (prompt - negative)`: 1 is the search alone, and above 1 leads away.
    They come before processors, and are what `logprobs` tells of.
    """

    name: ClassVar[str] = "guided"
    search: Search | Named = "greedy"
    scale: float = 1.5
    negative: str | tuple[int, ...] = ()  # a text or tokens; nothing: the last token of the prompt

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise OptionError(f"the scale of guidance is {self.scale}; it must be a finite number (1: none)")

    def bind(self, vocabulary: Vocabulary) -> Self:
        negative = vocabulary.encode_prompt(self.negative) if isinstance(self.negative, str) else self.negative
        check_tokens(negative, vocabulary.size)
        return replace(self, search=find_search(self.search, vocabulary), negative=negative)

    def flow(self, context: Context) -> Flow:
        if not isinstance(self.search, Search) or isinstance(self.negative, str):
            raise OptionError(f"search {self.search!r} is not bound yet; the runner does that, or bind()")
        flow = self.search.flow(context)
        if self.scale == 1:
            return flow
        negative = self.negative or context.prompt[-1:]
        return mirror(flow, self._lead, Companion(prompt=context.prompt, instead=negative))

    def _lead(self, own: FloatArray, negative: Sequence[FloatArray]) -> FloatArray:
        for scores, others in zip(own, negative[0], strict=True):
            scores -= log_sum_exp(scores)
            others -= log_sum_exp(others)
            scores -= others
            scores *= self.scale
            scores += others
        return own
