"""sdk, scaling: refinement (Madaan et al., arXiv 2303.17651): an answer, what is wrong with it, the next answer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from edgewise.errors import OptionError
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Prompt, Scaler
from edgewise.scaling.templates import check_template
from edgewise.scaling.verifier import Verifier, find_verifier, judged

AGAIN = "{prompt}{answer}\n\nThat is not right. {feedback}\nOnce more:\n{prompt}"


@dataclass(frozen=True, kw_only=True)
class Refine(Scaler):
    """Draws one answer at a time until the verifier accepts one; else the one with the best score.

    A text is asked again by `again`, with the answer and the feedback in it; a conversation goes on with the answer
    and the feedback as messages.
    """

    name: ClassVar[str] = "refine"
    verifier: str | Mapping[str, Any] | Verifier
    again: str = AGAIN

    def __post_init__(self) -> None:
        find_verifier(self.verifier)
        check_template("again", self.again, needed="prompt", others=("answer", "feedback"))

    def flow(self, context: Context) -> Flow:
        verifier = find_verifier(self.verifier)
        found: tuple[Candidate, ...] = ()
        prompt: Prompt | None = None
        while drawn := (yield Draw(prompt=prompt, options=verifier.options)):
            (verdict,) = yield from judged(verifier, context, drawn)
            found += (replace(drawn[0], score=verdict.score),)
            if verdict.accepted is None:
                raise OptionError(f"scaler 'refine' ends with what is accepted, and '{verifier.name}' accepts none")
            if verdict.accepted:
                return Choice(found[-1], found, f"accepted, attempt {len(found)}")
            prompt = self._asked_again(context.prompt, drawn[0].text, verdict.feedback)
        best = max(found, key=lambda each: each.score)
        return Choice(best, found, f"score {best.score:.4g}, the best of {len(found)}; none was accepted")

    def _asked_again(self, prompt: Prompt, answer: str, feedback: str) -> Prompt:
        if isinstance(prompt, str):
            return self.again.format(prompt=prompt, answer=answer, feedback=feedback)
        if prompt and isinstance(prompt[0], Mapping):
            turns = [{"role": "assistant", "content": answer}, {"role": "user", "content": feedback}]
            return [*prompt, *turns]
        raise OptionError(
            "scaler 'refine' writes the answer into the prompt: give a text or a conversation, not tokens"
        )
