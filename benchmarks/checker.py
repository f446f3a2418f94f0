"""An exact checker of examples/arithmetic, as a verifier: it works every line out."""

from edgewise import Verifier
from edgewise.scaling.protocol import Candidate, Context
from edgewise.scaling.verifier import Judging, Verdict
from problems import value


class Checker(Verifier):
    """Works every step out, and sees that it takes what is there: an exact verifier of whole and partial answers."""

    name = "checker"

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        asked = str(context.prompt).strip()
        return tuple(self._verdict(asked, each) for each in candidates)
        yield

    def _verdict(self, asked: str, candidate: Candidate) -> Verdict:
        wrong = mistake(asked, candidate.text, whole=candidate.finish_reason == "eos")
        return Verdict(float(wrong is None), wrong is None, wrong or "")


def mistake(problem: str, text: str, *, whole: bool) -> str | None:
    """The first line that is wrong; None where there is none."""
    terms = problem.split("+")
    for line in text.strip().split("\n"):
        left, _, right = line.partition("=")
        for part in left.split("+") if left not in terms else [left]:
            if part not in terms:
                return f"{line}: there is no {part}"
            terms.remove(part)
        if not right.isdigit() or int(right) != value(left):
            return f"{line} is wrong"
        terms.append(right)
    return None if not whole or len(terms) == 1 else "not all is added"
