"""sdk, quality: an encoder's bundle on texts, against the float graph of its checkpoint, or another bundle."""

import dataclasses
import json
import logging
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx_ir as ir

from edgewise.bundle.read import Bundle
from edgewise.calibration.texts import CalibrationText, passages
from edgewise.checkpoint import Checkpoint
from edgewise.errors import GateError, OptionError
from edgewise.exporters import export_graph
from edgewise.facts import EncoderFacts
from edgewise.graph import any_facts
from edgewise.options import record
from edgewise.prepare import Prepared, open_checkpoint
from edgewise.quality.likeness import Likeness, of_labels, of_vectors
from edgewise.quality.scorers import is_bundle
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.ort import open_graph
from edgewise.text.tokenizer import Tokenizer
from edgewise.writer import write_model

logger = logging.getLogger(__name__)

DIGITS = 6  # of the figures on a card
FEWEST = 3  # texts that can be compared with one another


def read_lines(text: CalibrationText, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Texts to compare on: lines that are not empty, shuffled, until they have the tokens that were asked for."""
    lines = list(dict.fromkeys(line.strip() for passage in passages(text.path) for line in passage.split("\n")))
    random.Random(text.seed).shuffle(lines)
    found, tokens = list[str](), 0
    for line in filter(None, lines):
        if tokens >= text.tokens:
            break
        found.append(line)
        tokens += len(tokenizer.encode(line))
    if len(found) < FEWEST:
        raise OptionError(f"text {text.path} has {len(found)} different lines; give {FEWEST} texts or more, one a line")
    return tuple(found)


def judge_encoder(bundle: Bundle, prepared: Prepared, texts: Sequence[str]) -> dict[str, Any]:
    """The figures of a bundle against its checkpoint, for the card. Raises GateError where the gate refuses them."""
    started = time.perf_counter()
    with Encoder.open(bundle.path, verify=False) as ours, float_encoder(prepared.reference, bundle.path) as theirs:
        found = compare(ours, theirs, texts)
    logger.info("quality on %d texts: %.1f s", found.texts, time.perf_counter() - started)
    if prepared.gate and (failures := prepared.gate.failures(found)):
        raise GateError("; ".join(failures))
    rounded = {
        key: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for key, value in dataclasses.asdict(found).items()
    }
    figures: dict[str, Any] = json.loads(json.dumps(rounded))
    return figures | ({"gate": record(prepared.gate)} if prepared.gate else {})


def evaluate_encoder(bundle: Bundle, text: CalibrationText, against: str | Path | Checkpoint) -> Likeness:
    """How far an encoder's bundle is from `against`: another bundle, or a checkpoint, in floats.

    Raises OptionError for one of another task, or with other labels.
    """
    with Encoder.open(bundle.path) as ours:
        texts = read_lines(text, ours.tokenizer)
        with _opened(against, bundle.path) as theirs:
            if (ours.facts.task, ours.facts.labels) != (theirs.facts.task, theirs.facts.labels):
                raise OptionError(f"{bundle.path} and {against} cannot be compared: they have other tasks, or labels")
            return compare(ours, theirs, texts)


def compare(ours: Encoder, theirs: Encoder, texts: Sequence[str]) -> Likeness:
    """How close two encoders are on texts."""
    if ours.facts.task == "feature-extraction":
        return of_vectors(ours.embed(texts), theirs.embed(texts))
    single = {"softmax": True, "sigmoid": False, "none": None}[ours.facts.scores]
    return of_labels(ours.probabilities(texts), theirs.probabilities(texts), single=single)


@contextmanager
def float_encoder(model: ir.Model, folder: Path) -> Iterator[Encoder]:
    """A canonical graph as it is, with the tokenizer of a folder."""
    facts = any_facts(model)
    assert isinstance(facts, EncoderFacts)
    with tempfile.TemporaryDirectory(prefix="edgewise-") as scratch:
        path = Path(scratch) / "model.onnx"
        write_model(model.clone(), path)
        with Encoder(open_graph(path), facts, Tokenizer.load(folder), name="the checkpoint") as encoder:
            yield encoder


@contextmanager
def _opened(source: str | Path | Checkpoint, beside: Path) -> Iterator[Encoder]:
    """A bundle, or a checkpoint in floats, whose tokenizer is the one that the bundle has."""
    if not isinstance(source, Checkpoint) and is_bundle(source):
        with Encoder.open(source) as encoder:
            yield encoder
        return
    checkpoint = open_checkpoint(source)
    model = export_graph(checkpoint)
    if not isinstance(any_facts(model), EncoderFacts):
        raise OptionError(f"{checkpoint.name} is a model for {any_facts(model).task}, and {beside} is none")
    with float_encoder(model, beside) as encoder:
        yield encoder
