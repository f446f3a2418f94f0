"""sdk, quality: how far one model's scores are from another's, position by position; float64 throughout.

With p the distribution of the reference, q that of the model and t the token that really follows:

    kld  = sum over v of p(v) * (log p(v) - log q(v))     Kullback-Leibler divergence, nats per token
    nll  = -log q(t)                                      negative log-likelihood, nats per token
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from edgewise.errors import GenerationError

BLOCK = 1 << 20  # scores that are worked on at a time: it bounds the memory of their float64 copies


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


def likelihoods(logits: np.ndarray, targets: np.ndarray) -> Likelihoods:
    """Scores `[positions, vocabulary]` against the tokens that follow, `[positions]`."""
    return Likelihoods.join([Likelihoods(_nll(_log_softmax(logits[some]), targets[some])) for some in _blocks(logits)])


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
    p, q = _log_softmax(reference), _log_softmax(logits)
    nll, reference_nll = _nll(q, targets), _nll(p, targets)
    same_top = (reference.argmax(axis=1) == logits.argmax(axis=1)).astype(np.float64)
    np.subtract(p, q, out=q)
    kld = np.einsum("tv,tv->t", np.exp(p, out=p), q)
    if not np.isfinite(kld).all():
        raise GenerationError("a model's scores are not finite (NaN or infinity): its weights are damaged, or overflow")
    return Divergences(nll, reference_nll, np.maximum(kld, 0), same_top)  # below 0 there is only rounding


def _blocks(logits: np.ndarray) -> Iterator[slice]:
    rows = max(1, BLOCK // logits.shape[1])
    for start in range(0, len(logits), rows):
        yield slice(start, start + rows)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _nll(log_probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.asarray(-np.take_along_axis(log_probabilities, targets[:, None], axis=1)[:, 0])
