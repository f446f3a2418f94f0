"""tests: a decoding graph at fixed places, as a GPU captures it: on the CPU provider it scores what a session does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import parity
from cases import CASES
from edgewise.bundle.manifest import Provider
from edgewise.graph import get_facts
from edgewise.runtime.batch import decode
from edgewise.runtime.bound import place
from edgewise.runtime.captured import Captured, is_captured
from edgewise.runtime.model import Model
from edgewise.runtime.pool import Pool
from edgewise.runtime.session import Session
from edgewise.search.protocol import FloatArray
from edgewise.writer import write_model
from edgewise_targets.ort.floats import Floats
from edgewise_targets.ort.lower import LowerOrt

# A window and biases, two rotary embeddings, positions as an input, tables that follow the context.
WAYS = {
    "qwen2": LowerOrt(),
    "gemma3": LowerOrt(),
    "llama": LowerOrt(rotary="before", packed=False, head_norms="reshaped"),
    "phi3 longrope": LowerOrt(),
}
CAPACITY = 64


def load(name: str, way: LowerOrt, folder: Path, home: Path) -> Model:
    model = parity.export(name, home)
    facts = get_facts(model)
    write_model(way(model).model, folder / "model.onnx")
    return Model(folder / "model.onnx", facts, context=CASES[name].context, threads=1)


def captured(model: Model, session: Session) -> Captured:
    """A binding on the very buffers of a session."""
    return Captured(model, model.graph, list(map(place, session.pool.buffers)))


@pytest.mark.parametrize("name", WAYS)
def test_tokens_score_what_they_do_in_a_session(name: str, tmp_path: Path, home: Path) -> None:
    model = load(name, WAYS[name], tmp_path, home)
    tokens = parity.oracle(name, home).tokens[0].tolist()
    fixed, expected = Session(model, capacity=CAPACITY), Session(model, capacity=CAPACITY)
    binding = captured(model, fixed)
    for start, stop in ((0, 5), (12, 20)):  # some tokens in one piece, then one at a time; then the same again
        fixed.prefill(tokens[start:stop])
        expected.prefill(tokens[start:stop])
        for token in tokens[stop : stop + 7]:
            scores = np.zeros((1, 1, model.facts.vocab_size), np.float32)
            binding.run([fixed.length], np.array([[token]]), scores)
            fixed.slot.hold(np.array([token]))
            wanted = expected.decode(token)
            # All of the capacity may be multiplied, and left out: sums in another order.
            np.testing.assert_allclose(scores[0], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_rows_of_different_lengths_are_computed_together(tmp_path: Path, home: Path) -> None:
    model = load("qwen2", LowerOrt(), tmp_path, home)
    rows: Sequence[Sequence[int]] = [[7, 8, 9], [11, 12, 13, 14, 15, 16]]
    sessions = [Session(model, capacity=CAPACITY) for _ in rows]
    for session, row in zip(sessions, rows, strict=True):
        session.prefill(row)
    both = [np.concatenate(pair) for pair in zip(*(session.pool.buffers for session in sessions), strict=True)]
    places = list(map(place, both))
    scores = np.zeros((2, 1, model.facts.vocab_size), np.float32)
    Captured(model, model.graph, places).run([3, 6], np.array([[20], [21]]), scores)
    for found, session, token in zip(scores, sessions, (20, 21), strict=True):
        np.testing.assert_allclose(found, session.decode(token), rtol=0, atol=1e-5 * np.abs(found).max())


@pytest.mark.parametrize("floats", ["float16", "float32"])
def test_a_narrow_cache_is_read_and_written_too(floats: Floats, tmp_path: Path, home: Path) -> None:
    model = load("phi3 longrope", LowerOrt(floats=floats), tmp_path, home)
    session = Session(model, capacity=CAPACITY)
    session.prefill([5, 6, 7])
    scores = np.zeros((1, 1, model.facts.vocab_size), np.float32)
    captured(model, session).run([3], np.array([[8]]), scores)
    assert session.pool.buffers[0].dtype == floats
    assert np.isfinite(scores).all()
    assert np.abs(session.pool.buffers[0][0, :, 3]).max() > 0


def test_sessions_decode_so_where_a_provider_captures(tmp_path: Path, home: Path) -> None:
    """Tokens, forks, growth and rewinding, alone and together; the number of a captured graph means nothing here."""
    model = load("qwen2", LowerOrt(), tmp_path, home)
    expected, found = list[FloatArray](), list[FloatArray]()
    for scores, captures in ((expected, False), (found, True)):
        model.captures = captures
        pool = Pool(model, capacity=8)
        first = Session(model, capacity=8, pool=pool)
        scores.append(first.prefill([5, 6, 7]).copy())
        scores.append(first.decode(8).copy())
        second = first.fork(pool=pool)
        for token in range(20, 28):  # past the capacity
            appends = [session.append((token + n,)) for n, session in enumerate((first, second))]
            decode(appends)
            scores += [append.result().copy() for append in appends]
        first.rewind(2)
        scores.append(first.decode(9).copy())
        kinds = {type(bound).__name__ for bound in pool._bounds.values()}
        assert ("Captured" in kinds) == captures
    for ours, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(("options", "captures"), [({"enable_cuda_graph": "1"}, True), ({}, False)])
def test_a_provider_says_whether_its_work_is_captured(options: dict[str, str], captures: bool) -> None:
    assert is_captured([Provider("CUDAExecutionProvider", options)]) == captures
