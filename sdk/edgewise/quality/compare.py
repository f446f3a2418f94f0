"""sdk, quality: two models on the same sequences."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx_ir as ir

from edgewise.checkpoint import Checkpoint
from edgewise.errors import OptionError
from edgewise.quality.divergence import Divergences, Likelihoods, aligned, divergences, likelihoods
from edgewise.quality.halves import halves
from edgewise.quality.report import Distance, distance
from edgewise.quality.scorers import Scorer, scorer
from edgewise.writer import Progress

Source = str | Path | Checkpoint | ir.Model  # a bundle or a checkpoint, a checkpoint that is open, a canonical graph

Found = TypeVar("Found", bound=Likelihoods)


def compare(source: Source, reference: Source, sequences: np.ndarray, *, progress: Progress | None = None) -> Distance:
    """How far a model is from its reference on sequences of tokens, int64 `[n, length]`.

    >>> compare("pycoder.edge", "examples/pycoder", sequences).mean_kld

    The reference's scores are computed and compared a few hundred tokens at a time, and never held. Raises
    OptionError for models that do not have the same vocabulary.
    """
    length = int(sequences.shape[1])
    model = scorer(source, length=length)
    floats = scorer(reference, length=length, context=model.context, progress=progress)
    return distance(Divergences.join(list(compared(model, floats, sequences))))


def compared(model: Scorer, reference: Scorer, sequences: np.ndarray) -> Iterator[Divergences]:
    """The divergences of each sequence, of all of its tokens but the last, after which nothing is known."""
    refuse_other_vocabulary(model, reference)
    streams = [reference.logits(sequences), model.logits(sequences)]
    return measured(streams, halves(sequences, model.facts)[1], divergences)


def scored(model: Scorer, sequences: np.ndarray) -> Iterator[Likelihoods]:
    """The likelihoods of each sequence, by a model alone."""
    return measured([model.logits(sequences)], halves(sequences, model.facts)[1], likelihoods)


def refuse_other_vocabulary(model: Scorer, reference: Scorer) -> None:
    ours, theirs = model.facts.vocab_size, reference.facts.vocab_size
    if ours != theirs:
        raise OptionError(
            f"the model has a vocabulary of {ours:,} tokens, and the one it is held against has {theirs:,}: "
            "their scores cannot be compared; a build with --quality-text compares those of the tokens that are left"
        )


def measured(
    streams: Sequence[Iterator[np.ndarray]],
    sequences: np.ndarray,
    measure: Callable[..., Found],
) -> Iterator[Found]:
    """What `measure` finds on the chunks of each sequence and the tokens that follow, a sequence at a time."""
    count, length = sequences.shape
    if not count or length < 2:
        raise OptionError("there are no tokens to measure the model on: a sequence takes at least 2")
    parts: list[Found] = []
    number = 0
    for start, chunks in aligned(streams, length):
        end = start + len(chunks[0])
        targets = sequences[number, start + 1 : end + 1]
        if len(targets):
            parts.append(measure(*(chunk[: len(targets)] for chunk in chunks), targets))
        if end == length:
            yield type(parts[0]).join(parts)
            number, parts = number + 1, []
