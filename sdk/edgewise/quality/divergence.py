"""sdk, quality: how far one model's scores are from another's, position by position; float64 throughout.

With p the distribution of the reference, q that of the model and t the token that really follows:

    kld  = sum over v of p(v) * (log p(v) - log q(v))     Kullback-Leibler divergence, nats per token
    overlap = sum over v of min(p(v), q(v))               of tokens drawn from q as drafts, the share that p accepts
                                                          (arXiv 2211.17192, theorem 3.5)
    nll  = -log q(t)                                      negative log-likelihood, nats per token
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from edgewise.errors import GenerationError

BLOCK = 1 << 18  # scores that are worked on at a time: their float64 copies stay near the processor


@dataclass(frozen=True)
class Likelihoods:
    """What a model says about the tokens that follow: float64 `[positions]`."""

    nll: np.ndarray

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        """Positions one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


@dataclass(frozen=True)
class Divergences(Likelihoods):
    """The same beside a reference. `same_top` is 1 where both have the same most likely token, and 0 elsewhere."""

    reference_nll: np.ndarray
    kld: np.ndarray
    same_top: np.ndarray
    overlap: np.ndarray


def likelihoods(logits: np.ndarray, targets: np.ndarray) -> Likelihoods:
    """Scores `[positions, vocabulary]` against the tokens that follow, `[positions]`."""
    return Likelihoods.join([Likelihoods(_Softmax(logits[some]).nll(targets[some])) for some in _blocks(logits)])


def divergences(reference: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> Divergences:
    """Scores of a model against those of a reference, both `[positions, vocabulary]`."""
    parts = [_divergences(reference[some], logits[some], targets[some]) for some in _blocks(logits)]
    return Divergences.join(parts)


def aligned(streams: Sequence[Iterator[np.ndarray]], length: int) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Streams of rows, chunked each in its own way, as chunks of the same rows.

    None reaches beyond a sequence of `length` rows; with each comes where in its sequence it begins.
    """
    rest = [np.empty((0, 0))] * len(streams)
    position = 0
    while True:
        for i, stream in enumerate(streams):
            if not len(rest[i]):
                rest[i] = next(stream, rest[i])
        rows = min(length - position, *map(len, rest))
        if not rows:
            return
        yield position, tuple(chunk[:rows] for chunk in rest)
        rest = [chunk[rows:] for chunk in rest]
        position = (position + rows) % length


def _divergences(reference: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> Divergences:
    p, q = _Softmax(reference), _Softmax(logits)
    nll, reference_nll = q.nll(targets), p.nll(targets)
    np.subtract(p.shifted, q.shifted, out=q.shifted)
    kld = np.einsum("tv,tv->t", p.powers, q.shifted) / p.sums - np.log(p.sums) + np.log(q.sums)
    if not np.isfinite(kld).all():
        raise GenerationError("a model's scores are not finite (NaN or infinity): its weights are damaged, or overflow")
    same_top = (reference.argmax(axis=1) == logits.argmax(axis=1)).astype(np.float64)
    overlap = np.minimum(p.probabilities(), q.probabilities()).sum(axis=1)
    return Divergences(nll, reference_nll, np.maximum(kld, 0), same_top, overlap)  # below 0 there is only rounding


class _Softmax:
    """Scores less the largest of each position, their powers of e, and the sums of these."""

    def __init__(self, logits: np.ndarray) -> None:
        self.shifted = logits.astype(np.float64)
        self.shifted -= self.shifted.max(axis=1, keepdims=True)
        self.powers = np.exp(self.shifted)
        self.sums = self.powers.sum(axis=1)

    def probabilities(self) -> np.ndarray:
        """In the place of their powers, `[positions, vocabulary]`."""
        self.powers /= self.sums[:, None]
        return self.powers

    def nll(self, targets: np.ndarray) -> np.ndarray:
        """Of these tokens, `[positions]`."""
        return np.asarray(np.log(self.sums) - np.take_along_axis(self.shifted, targets[:, None], axis=1)[:, 0])


def _blocks(logits: np.ndarray) -> Iterator[slice]:
    rows = max(1, BLOCK // logits.shape[1])
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)
