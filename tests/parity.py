"""tests: logits of a graph beside those of transformers: the oracle, ways of feeding, a session of the canonical graph.

A `Session` is a model with a growing cache: it takes the new tokens of each row and gives the logits of each of them.
Another dialect brings its own session, and reuses the cases, the ways of feeding and the oracle.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
import torch
import transformers
from numpy.typing import NDArray

import tiny
from cases import CASES
from edgewise.checkpoint import Checkpoint
from edgewise.facts import Facts
from edgewise.rotary import tables
from edgewise_exporters.decoder import Decoder

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

torch.set_num_threads(1)  # matrices this small take longer on two

Logits = NDArray[np.float32]
Tokens = NDArray[np.int64]
Row = Sequence[int] | Tokens

ROWS = 3
STEPS = 64  # of greedy decoding
PROMPT = 8

TOLERANCE = 1e-5  # of the largest logit; float32 sums in another order give 3e-7 or so


class Session(Protocol):
    """One cache; a call appends `rows[r]` to row r, and gives its logits `[len(rows[r]), vocabulary]`."""

    def __call__(self, rows: Sequence[Row]) -> list[Logits]: ...


@dataclass(frozen=True)
class Oracle:
    """What transformers computes: eager attention, float32, every row in one piece."""

    checkpoint: Path
    tokens: Tokens  # [rows, length]
    logits: Logits  # [rows, length, vocabulary]
    greedy: tuple[int, ...]  # after the first tokens of the first row


@cache
def oracle(name: str, home: Path) -> Oracle:
    """The oracle of a case; its checkpoint lies under `home`."""
    case = CASES[name]
    checkpoint = tiny.checkpoint(case.family, home / "parity" / name.replace(" ", "-"), **case.overrides)
    tokens = np.random.default_rng(7).integers(3, tiny.VOCABULARY, (ROWS, case.length))
    with torch.no_grad():
        logits = reference(checkpoint)(torch.from_numpy(tokens)).logits.numpy()
        # A model of its own: `dynamic` keeps the frequencies of the longest sequence it has seen.
        prompt = torch.from_numpy(tokens[:1, :PROMPT])
        generated = reference(checkpoint).generate(prompt, max_new_tokens=STEPS, do_sample=False)
    return Oracle(checkpoint, tokens, logits, tuple(generated[0, PROMPT:].tolist()))


def following(facts: Facts, context: int) -> dict[str, NDArray[np.float32]]:
    """The rotary tables that follow the context, by the names of the graph's inputs."""
    return {
        f"rotary.{name}.{part}": values
        for name, rotary in facts.rotary.items()
        if rotary.follows_context
        for part, values in zip(("cos", "sin"), tables(rotary, context), strict=True)
    }


def export(name: str, home: Path) -> ir.Model:
    """The canonical graph of a case."""
    return Decoder().export(Checkpoint.open(oracle(name, home).checkpoint))


def reference(checkpoint: Path) -> Any:
    """The model as transformers loads it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, attn_implementation="eager"
    )
    model.generation_config.eos_token_id = None
    return model


def in_one_piece(session: Session, tokens: Tokens) -> list[Logits]:
    return session([tokens[0]])


def in_chunks(session: Session, tokens: Tokens) -> list[Logits]:
    pieces, start = [], 0
    for size in (5, 1, 13, 2, len(tokens[0])):
        pieces += session([tokens[0, start : start + size]])
        start += size
    return [np.concatenate(pieces)]


def token_by_token(session: Session, tokens: Tokens) -> list[Logits]:
    return [np.concatenate([session([[token]])[0] for token in tokens[0]])]


def in_a_padded_batch(session: Session, tokens: Tokens) -> list[Logits]:
    """Prompts of different lengths, padded on the right; then single tokens, over a cache that holds the padding."""
    steps = 6
    lengths = (tokens.shape[1] - steps, tokens.shape[1] // 2, 3)
    pieces = [session([row[:length] for row, length in zip(tokens, lengths, strict=True)])]
    for step in range(steps):
        pieces.append(session([[row[length + step]] for row, length in zip(tokens, lengths, strict=True)]))
    return [np.concatenate(row) for row in zip(*pieces, strict=True)]


FEEDINGS: dict[str, Callable[[Session, Tokens], list[Logits]]] = {
    "in one piece": in_one_piece,
    "in chunks": in_chunks,
    "token by token": token_by_token,
    "in a padded batch": in_a_padded_batch,
}


def greedy(session: Session, prompt: Row, steps: int = STEPS) -> tuple[int, ...]:
    logits = session([prompt])[0]
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < steps:
        tokens.append(int(session([tokens[-1:]])[0][-1].argmax()))
    return tuple(tokens)


def difference(logits: Sequence[Logits], oracle: Oracle) -> float:
    """The largest difference from the oracle, as a share of its largest logit."""
    largest = max(1.0, float(np.abs(oracle.logits).max()))
    rows = zip(logits, oracle.logits, strict=False)
    return max(float(np.abs(ours - theirs[: len(ours)]).max()) for ours, theirs in rows) / largest


def load(graph: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3  # a table that a session may replace is worth a warning to ONNX Runtime
    options.intra_op_num_threads = 1
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


class Canonical:
    """A session of a canonical graph; its cache is grown by concatenation, padding included."""

    def __init__(self, graph: ort.InferenceSession, facts: Facts, context: int) -> None:
        self.graph, self.facts = graph, facts
        self.outputs = [output.name for output in graph.get_outputs()]
        self.valid = np.zeros((0, 0), np.int64)
        self.cache: dict[str, NDArray[np.float32]] = {}
        self.tables = following(facts, context)

    def __call__(self, rows: Sequence[Row]) -> list[Logits]:
        if not self.cache:
            self._empty(len(rows))
        lengths = [len(row) for row in rows]
        new = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
        tokens = np.zeros_like(new)
        tokens[new == 1] = np.concatenate([np.asarray(row) for row in rows])
        positions = self.valid.sum(axis=1, keepdims=True) + np.arange(max(lengths))
        self.valid = np.concatenate([self.valid, new], axis=1)
        feeds = {"input_ids": tokens, "attention_mask": self.valid, "position_ids": positions}
        results = dict(zip(self.outputs, self.graph.run(None, {**feeds, **self.cache, **self.tables}), strict=True))
        self.cache = {name: results[name.replace("past_key_values", "present")] for name in self.cache}
        return [logits[:length] for logits, length in zip(results["logits"], lengths, strict=True)]

    def _empty(self, rows: int) -> None:
        self.valid = np.zeros((rows, 0), np.int64)
        for layer, a in enumerate(self.facts.attention):
            for part in ("key", "value"):
                shape = (rows, a.kv_heads, 0, a.head_dim)
                self.cache[f"past_key_values.{layer}.{part}"] = np.zeros(shape, np.float32)
