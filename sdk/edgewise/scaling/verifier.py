"""sdk, scaling: what says how good an answer is: a verifier."""

import math
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from edgewise.catalog import one_line
from edgewise.errors import EdgewiseError, OptionError
from edgewise.scaling.protocol import Candidate, Context, Draw


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of a candidate."""

    score: float  # more is better; what scores are to be summed by is 0 or more
    accepted: bool | None = None  # whether it is right; None where the verifier cannot tell
    feedback: str = ""  # what is wrong with it, for the next attempt


Judging = Generator[Draw, tuple[Candidate, ...], tuple[Verdict, ...]]


class Verifier(ABC):
    """Scores candidates. Subclasses are frozen dataclasses: their fields are the options.

    It may draw itself (a judge's verdict, from another model), in the budget of the scaler that it works for.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}  # of the generation of what it is to judge: `{"logprobs": 0}`

    @property
    def models(self) -> int:
        """How many there must be, the one that answers included."""
        return 1

    def check(self, context: Context) -> None:
        """Raises OptionError where there are fewer models than it asks."""
        if self.models > context.models:
            raise OptionError(
                f"verifier '{self.name}' asks model {self.models - 1}, and there are {context.models}; give it one more"
            )

    @abstractmethod
    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        """A verdict for each candidate."""


def judged(verifier: Verifier, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
    """Its verdicts. Raises OptionError where it fails, with its name."""
    try:
        verdicts = yield from verifier.judge(context, candidates)
    except EdgewiseError:
        raise
    except Exception as error:
        raise OptionError(f"verifier '{verifier.name}' failed: {one_line(error)}") from error
    if len(verdicts) != len(candidates):
        raise OptionError(f"verifier '{verifier.name}' failed: {len(verdicts)} verdicts on {len(candidates)} answers")
    if any(math.isnan(verdict.score) for verdict in verdicts):
        raise OptionError(f"verifier '{verifier.name}' failed: a score is not a number")
    return verdicts


def find_verifier(given: str | Mapping[str, Any] | Verifier) -> Verifier:
    """A verifier as it is, or by its name, with options in a table. Raises OptionError."""
    if isinstance(given, Verifier):
        return given
    if not isinstance(given, str | Mapping):
        raise OptionError(f"verifier is {given!r}; it must be the name of a verifier, or a verifier with its options")
    from edgewise.registry import registry
    from edgewise.search.named import named

    found = named(given, registry().verifiers, "verifier")
    assert isinstance(found, Verifier)
    return found
