"""sdk, scaling: a verifier that is another bundle with a score of its own: a reward head, a classifier, a token."""

import math
from dataclasses import dataclass
from typing import ClassVar

from edgewise.errors import OptionError
from edgewise.options import known
from edgewise.scaling.asking import Asking


@dataclass(frozen=True, kw_only=True)
class Reward(Asking):
    """How probable a bundle holds a `label` of the prompt with the answer: a classifier's, or the next token's.

    A head with one score, as reward models have, needs no label: the score is its sigmoid. The bundle is `model` 1
    unless another is named; 0 is the one that answers. The answer is accepted where the score is `least` or more.
    """

    name: ClassVar[str] = "reward"
    template: ClassVar[str] = "text"
    top: ClassVar[int] = 100
    unread: ClassVar[float] = 0.0

    label: str | None = None
    text: str = "{prompt}{text}"  # what the bundle reads

    def score(self, following: list[tuple[str, float]]) -> float:
        if self.label is None:
            if len(following) != 1:
                names = known([name for name, _ in following[:9]])
                raise OptionError(f"verifier 'reward' needs a label; model {self.model} gives {names}")
            return math.exp(following[0][1])
        return sum(math.exp(logprob) for name, logprob in following if name == self.label)
