"""sdk, scaling: what a scaled prompt gives: the answer, why it is this one, and what it took."""

from dataclasses import dataclass

from edgewise.bench.energy import Energy
from edgewise.scaling.protocol import Candidate


@dataclass(frozen=True)
class Spent:
    """What it took, verification included."""

    samples: int
    tokens: int  # new ones, of all models and for all purposes; those that ended a sequence count too
    prompt_tokens: int  # computed, not taken from what was known
    seconds: float
    energy: Energy


@dataclass(frozen=True)
class Scaled:
    """The best answer with all candidates; its text and answer are also reached as `scaled.text` and so on."""

    best: Candidate
    candidates: tuple[Candidate, ...]
    why: str
    early: bool  # whether the scaler settled before the budget was spent
    spent: Spent

    @property
    def text(self) -> str:
        return self.best.text

    @property
    def answer(self) -> str:
        """In canonical form, where the scaler takes answers out of texts; else the text."""
        return self.best.text if self.best.answer is None else self.best.answer
