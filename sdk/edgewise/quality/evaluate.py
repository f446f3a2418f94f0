"""sdk, quality: a bundle on a text, alone or held against what it was made from: the whole of `edgewise eval`."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import blake3
import numpy as np

from edgewise.bundle.probe import probe
from edgewise.bundle.read import Bundle
from edgewise.calibration.cache import claimed
from edgewise.calibration.fingerprint import array_digest, fingerprint
from edgewise.calibration.texts import CalibrationText
from edgewise.checkpoint import Checkpoint
from edgewise.errors import CheckpointError, OptionError
from edgewise.exporters import export_graph
from edgewise.prepare import open_checkpoint
from edgewise.quality.compare import compared, refuse_other_vocabulary, scored
from edgewise.quality.divergence import Divergences, Likelihoods
from edgewise.quality.finished import Finished, Found
from edgewise.quality.greedy import compare_greedy
from edgewise.quality.halves import halves
from edgewise.quality.report import Quality, quality
from edgewise.quality.scorers import Lowered, Scorer, is_bundle, lowered, unquantized
from edgewise.text.tokenizer import FILE_NAME, Tokenizer
from edgewise.writer import Progress

logger = logging.getLogger(__name__)

VERSION = 2  # of what is kept of an evaluation that did not end


def evaluate(
    bundle: str | Path,
    text: CalibrationText,
    *,
    against: str | Path | Checkpoint | None = None,
    progress: Progress | None = None,
) -> Quality:
    """How well a bundle foretells a text, and how far it is from `against`: another bundle, or a checkpoint.

    A checkpoint is run in float32, a layer in memory at a time. An evaluation that was killed goes on after the last
    sequence that it finished, if bundle, text, options and reference are the same. Raises OptionError where the two
    do not have the same vocabulary, or read the text as different tokens.
    """
    opened = Bundle.open(bundle)
    tokenizer = Tokenizer.load(opened.path)
    model = lowered(opened, length=text.length)
    sequences = text.sequences(tokenizer)
    reference, identity = None, ""
    if against is not None:
        reference, identity = _reference(against, text, sequences, model, progress)
    key = blake3.blake3(f"{VERSION} {opened.manifest.write()} {identity} {array_digest(sequences)}".encode())
    with claimed(key.hexdigest()) as folder:
        return assess(model, reference, sequences, tokenizer, folder=folder, progress=progress)


def assess(
    model: Lowered,
    reference: Scorer | None,
    sequences: np.ndarray,
    tokenizer: Tokenizer,
    *,
    folder: Path,
    progress: Progress | None = None,
) -> Quality:
    """The figures of a model on sequences; `folder` keeps those that are finished."""
    _, read = halves(sequences, model.facts)
    positions = read.shape[1] - 1
    text_bytes = sum(_scored_bytes(tokens, tokenizer) for tokens in read)
    if reference is None:
        alone = Finished(folder, Likelihoods, positions)
        _complete(alone, partial(scored, model), sequences, progress)
        return quality(Likelihoods.join(alone.found), length=positions + 1, text_bytes=text_bytes)
    beside = Finished(folder, Divergences, positions)
    _complete(beside, partial(compared, model, reference), sequences, progress)
    greedy = compare_greedy(model, reference, sequences)
    return quality(Divergences.join(beside.found), length=positions + 1, text_bytes=text_bytes, greedy=greedy)


def _complete(
    finished: Finished[Found],
    measure: Callable[[np.ndarray], Iterator[Found]],
    sequences: np.ndarray,
    progress: Progress | None,
) -> None:
    """Measure the sequences that are not finished."""
    done, count = len(finished.found), len(sequences)
    if done:
        logger.info("%d of %d sequences were measured before", done, count)
    for found in measure(sequences[done:]) if done < count else ():
        finished.add(found)
        if progress:
            progress("eval", len(finished.found), count)


def _scored_bytes(tokens: np.ndarray, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of a sequence, without those of its first token, which nothing foretells."""
    first, whole = (len(tokenizer.decode(some.tolist()).encode()) for some in (tokens[:1], tokens))
    return max(1, whole - first)


def _reference(
    source: str | Path | Checkpoint,
    text: CalibrationText,
    sequences: np.ndarray,
    model: Lowered,
    progress: Progress | None,
) -> tuple[Scorer, str]:
    """What a model is held against, and what tells it from others."""
    if isinstance(source, Checkpoint) or not is_bundle(source):
        checkpoint = open_checkpoint(source)
        graph = export_graph(checkpoint)
        reference: Scorer = unquantized(graph, context=model.model.context, progress=progress)
        folder, has_tokenizer = checkpoint.folder, FILE_NAME in checkpoint.companions
        if has_tokenizer and (problem := probe("text", folder)):
            raise CheckpointError(problem)
        identity = fingerprint(graph)
    else:
        bundle = Bundle.open(source)
        reference, folder, has_tokenizer = lowered(bundle, length=text.length), bundle.path, True
        identity = bundle.manifest.write()
    refuse_other_vocabulary(model, reference)
    if has_tokenizer and not np.array_equal(text.sequences(Tokenizer.load(folder)), sequences):
        raise OptionError(
            f"{folder} reads the text as other tokens than the bundle does: their scores cannot be compared"
        )
    return reference, identity
