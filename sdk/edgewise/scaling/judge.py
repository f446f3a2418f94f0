"""sdk, scaling: verifiers that ask: another bundle with a rubric, or the other candidates."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgewise.scaling.answers import Extract, find_extract
from edgewise.scaling.protocol import Candidate, Context, Draw
from edgewise.scaling.templates import check_template
from edgewise.scaling.verifier import Judging, Verdict, Verifier

RUBRIC = "Question:\n{prompt}\n\nAnswer:\n{text}\n\nIs the answer right? Yes or No:"
TOP = 20  # tokens among which the two words are looked for


@dataclass(frozen=True, kw_only=True)
class Judge(Verifier):
    """Asks a bundle whether an answer is right: the probability of `yes`, of that and `no` together.

    The bundle is `model` 1 unless another is named; 0 is the one that answers. What is neither word leaves 0.5.
    """

    name: ClassVar[str] = "judge"
    model: int = 1
    rubric: str = RUBRIC
    yes: str = "Yes"
    no: str = "No"
    least: float = 0.5  # for an answer to be accepted

    def __post_init__(self) -> None:
        check_template("rubric", self.rubric, needed="text", others=("prompt",))

    @property
    def models(self) -> int:
        return self.model + 1

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        self.check(context)
        options: Mapping[str, Any] = {"search": "greedy", "max_tokens": 1, "logprobs": TOP}
        verdicts = []
        for each in candidates:
            prompt = self.rubric.format(prompt=said(context), text=each.text)
            drawn = yield Draw(model=self.model, prompt=prompt, options=options, sample=False)
            score = self._score(context, drawn[0]) if drawn else 0.5  # the budget was spent before it could be asked
            verdicts.append(Verdict(score, score >= self.least))
        return tuple(verdicts)

    def _score(self, context: Context, said: Candidate) -> float:
        top = said.logprobs[0].top if said.logprobs else ()
        texts = [(context.spell(Candidate(text="", tokens=(token,), model=self.model))[0], p) for token, p in top]
        yes, no = (sum(math.exp(p) for text, p in texts if _is(text, word)) for word in (self.yes, self.no))
        return yes / (yes + no) if yes + no else 0.5


@dataclass(frozen=True, kw_only=True)
class Votes(Verifier):
    """The share of those that are judged together which give the same answer."""

    name: ClassVar[str] = "votes"
    extract: str | Extract = "last_number"

    def __post_init__(self) -> None:
        find_extract(self.extract)

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        answers = [find_extract(self.extract)(each.text) for each in candidates]
        votes = Counter(answers)
        return tuple(Verdict(votes[each] / len(answers) if each is not None else 0.0) for each in answers)
        yield


def _is(text: str, word: str) -> bool:
    """Whether a token begins the word, or is it: words may take several."""
    said = text.strip().casefold()
    return bool(said) and word.casefold().startswith(said)


def said(context: Context) -> str:
    """The prompt as text: of a conversation, its last message."""
    if isinstance(context.prompt, str):
        return context.prompt
    last = context.prompt[-1] if context.prompt else ""
    return str(last.get("content", "")) if isinstance(last, Mapping) else ""
