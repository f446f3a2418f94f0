"""sdk, scaling: a verifier that is another bundle with a score of its own: a reward head, a classifier, a token."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgewise.errors import OptionError
from edgewise.options import known
from edgewise.scaling.judge import said
from edgewise.scaling.protocol import Candidate, Context, Draw
from edgewise.scaling.templates import check_template
from edgewise.scaling.verifier import Judging, Verdict, Verifier

TOP = 100  # tokens among which the label of a language model is looked for


@dataclass(frozen=True, kw_only=True)
class Reward(Verifier):
    """How probable a bundle holds a `label` of the prompt with the answer: a classifier's, or the next token's.

    A head with one score, as reward models have, needs no label: the score is its sigmoid. The bundle is `model` 1
    unless another is named; 0 is the one that answers. The answer is accepted where the score is `least` or more.
    """

    name: ClassVar[str] = "reward"
    model: int = 1
    label: str | None = None
    text: str = "{prompt}{text}"  # what the bundle reads
    least: float = 0.5

    def __post_init__(self) -> None:
        check_template("text", self.text, needed="text", others=("prompt",))

    @property
    def models(self) -> int:
        return self.model + 1

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        self.check(context)
        options: Mapping[str, Any] = {"search": "greedy", "max_tokens": 1, "logprobs": TOP}
        verdicts = []
        for each in candidates:
            read = self.text.format(prompt=said(context), text=each.text)
            drawn = yield Draw(model=self.model, prompt=read, options=options, sample=False)
            score = self._score(context, drawn[0]) if drawn else 0.0  # the budget was spent before it was read
            verdicts.append(Verdict(score, score >= self.least))
        return tuple(verdicts)

    def _score(self, context: Context, found: Candidate) -> float:
        """The probability of the label; tokens are compared without space around them."""
        top = found.logprobs[0].top if found.logprobs else ()
        names = [context.spell(Candidate(text="", tokens=(token,), model=self.model))[0].strip() for token, _ in top]
        if self.label is None:
            if len(top) != 1:
                raise OptionError(f"verifier 'reward' needs a label; model {self.model} gives {known(names[:9])}")
            return math.exp(top[0][1])
        return sum(math.exp(logprob) for name, (_, logprob) in zip(names, top, strict=True) if name == self.label)
