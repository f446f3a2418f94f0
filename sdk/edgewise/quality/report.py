"""sdk, quality: the figures of a model on a text, and of how far it is from its reference."""

import math
import statistics
from dataclasses import dataclass

import numpy as np

from edgewise.quality.divergence import Divergences, Likelihoods


@dataclass(frozen=True)
class Greedy:
    """How far the greedy text of a model is that of its reference: tokens until they differ, for each prompt.

    A text that never differs counts `tokens`; one that both end counts as one that never differs.
    """

    tokens: int
    same: tuple[int, ...]

    def sentence(self) -> str:
        """The figures, as people read them."""
        never = sum(same == self.tokens for same in self.same)
        middle = statistics.median(self.same)
        return (
            f"the same for {middle:g} of {self.tokens} tokens in the median, {min(self.same)} at least; "
            f"{never} of {len(self.same)} texts never differ"
        )


@dataclass(frozen=True)
class Distance:
    """How far a model is from its reference on a text. KL divergence in nats per token, reference || model.

    `perplexity_ratio` is exp of the mean difference of negative log-likelihoods, token by token; the errors are
    standard errors, of tokens taken as independent. `p99_kld`: of 100 tokens, 99 have less.
    """

    mean_kld: float
    mean_kld_error: float
    p99_kld: float
    max_kld: float
    top1: float  # share of positions with the same most likely token
    overlap: float  # share of the tokens drawn from the model that the reference would accept as drafts
    reference_perplexity: float
    perplexity_ratio: float
    perplexity_ratio_error: float
    greedy: Greedy | None = None


@dataclass(frozen=True)
class Quality:
    """How well a model foretells a text, and how far it is from its reference, if it has one.

    `tokens` were scored: all but the first of each sequence. `bits_per_byte` is of the text's UTF-8 bytes.
    """

    tokens: int
    length: int  # of a sequence
    perplexity: float
    bits_per_byte: float
    distance: Distance | None = None


def distance(found: Divergences, greedy: Greedy | None = None) -> Distance:
    """The figures of positions that were compared."""
    difference = found.nll - found.reference_nll
    ratio = math.exp(float(difference.mean()))
    return Distance(
        mean_kld=float(found.kld.mean()),
        mean_kld_error=_standard_error(found.kld),
        p99_kld=float(np.quantile(found.kld, 0.99)),
        max_kld=float(found.kld.max()),
        top1=float(found.same_top.mean()),
        overlap=float(found.overlap.mean()),
        reference_perplexity=math.exp(float(found.reference_nll.mean())),
        perplexity_ratio=ratio,
        perplexity_ratio_error=ratio * _standard_error(difference),
        greedy=greedy,
    )


def quality(found: Likelihoods, *, length: int, text_bytes: int, greedy: Greedy | None = None) -> Quality:
    """The figures of all positions of a text, which has so many bytes."""
    return Quality(
        tokens=len(found.nll),
        length=length,
        perplexity=math.exp(float(found.nll.mean())),
        bits_per_byte=float(found.nll.sum()) / math.log(2) / text_bytes,
        distance=distance(found, greedy) if isinstance(found, Divergences) else None,
    )


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
