"""sdk, search: how good a text is if another one is right: from 0 to 1."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from edgewise.errors import OptionError
from edgewise.options import unknown

T = TypeVar("T")

ORDER = 6  # characters of the longest n-gram
BETA = 2  # how much recall counts beside precision


@runtime_checkable
class Utility(Protocol):
    """A function of two texts."""

    def __call__(self, hypothesis: str, reference: str, /) -> float: ...


def exact(hypothesis: str, reference: str) -> float:
    """1 where both are the same, but for space around them: an expected utility is then the share of votes."""
    return float(hypothesis.strip() == reference.strip())


def token_f1(hypothesis: str, reference: str) -> float:
    """The harmonic mean of precision and recall of words, as they stand between spaces; 1 for two empty texts."""
    words, others = Counter(hypothesis.split()), Counter(reference.split())
    if not words and not others:
        return 1.0
    return 2 * _common(words, others) / (words.total() + others.total())


def chrf(hypothesis: str, reference: str) -> float:
    """chrF2 (Popović 2015) as sacrebleu defines it, of 1 instead of 100: without spaces, up to 6 characters.

    Precision and recall are means over the lengths of n-gram that both texts have.
    """
    mine, theirs = ("".join(text.split()) for text in (hypothesis, reference))
    lengths = range(1, min(ORDER, len(mine), len(theirs)) + 1)
    if not lengths:
        return 0.0
    pairs = [(_ngrams(mine, n), _ngrams(theirs, n)) for n in lengths]
    precision = sum(_common(a, b) / a.total() for a, b in pairs) / len(pairs)
    recall = sum(_common(a, b) / b.total() for a, b in pairs) / len(pairs)
    weighted = BETA**2 * precision + recall
    return (1 + BETA**2) * precision * recall / weighted if weighted else 0.0


UTILITIES: dict[str, Utility] = {"chrf": chrf, "exact": exact, "token_f1": token_f1}


def find_utility(given: str | Utility) -> Utility:
    """A function as it is, or one by name. Raises OptionError."""
    if not isinstance(given, str):
        return given
    if given not in UTILITIES:
        raise OptionError(unknown("utility", given, UTILITIES))
    return UTILITIES[given]


def expected(texts: Sequence[str], utility: Utility) -> list[float]:
    """Of each text its utility on average over all that may be right, itself included."""
    kinds = dict.fromkeys(texts)
    known = {(text, other): utility(text, other) for text in kinds for other in kinds}
    return [sum(known[text, other] for other in texts) / len(texts) for text in texts]


def _ngrams(text: str, n: int) -> Counter[str]:
    return Counter(text[i : i + n] for i in range(len(text) - n + 1))


def _common(mine: Counter[T], theirs: Counter[T]) -> int:
    return (mine & theirs).total()
