"""sdk, scaling: verifiers that have another bundle read the answer, and look at its next token."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgewise.scaling.protocol import Candidate, Context, Draw
from edgewise.scaling.templates import check_template
from edgewise.scaling.verifier import Judging, Verdict, Verifier


@dataclass(frozen=True, kw_only=True)
class Asking(Verifier):
    """Has `model` read a text with the answer; the score is of what it would write next. 0 is the one that answers.

    The answer is accepted where the score is `least` or more.
    """

    template: ClassVar[str]  # the name of the option that says what is read
    top: ClassVar[int]  # tokens among which words are looked for
    unread: ClassVar[float]  # the score where the budget was spent before the bundle could read

    model: int = 1
    least: float = 0.5

    def __post_init__(self) -> None:
        check_template(self.template, self._template, needed="text", others=("prompt",))

    @property
    def models(self) -> int:
        return self.model + 1

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        self.check(context)
        options: Mapping[str, Any] = {"search": "greedy", "max_tokens": 1, "logprobs": self.top}
        verdicts = []
        for each in candidates:
            prompt = self._template.format(prompt=said(context), text=each.text)
            drawn = yield Draw(model=self.model, prompt=prompt, options=options, sample=False)
            score = self.score(self._next(context, drawn[0])) if drawn else self.unread
            verdicts.append(Verdict(score, score >= self.least))
        return tuple(verdicts)

    @abstractmethod
    def score(self, following: list[tuple[str, float]]) -> float:
        """The score by the likeliest next tokens, without space around them, and their log-probabilities."""

    @property
    def _template(self) -> str:
        return str(getattr(self, self.template))

    def _next(self, context: Context, found: Candidate) -> list[tuple[str, float]]:
        top = found.logprobs[0].top if found.logprobs else ()
        return [
            (context.spell(Candidate(text="", tokens=(token,), model=self.model))[0].strip(), logprob)
            for token, logprob in top
        ]


def said(context: Context) -> str:
    """The prompt as text: of a conversation, its last message."""
    if isinstance(context.prompt, str):
        return context.prompt
    last = context.prompt[-1] if context.prompt else ""
    return str(last.get("content", "")) if isinstance(last, Mapping) else ""
