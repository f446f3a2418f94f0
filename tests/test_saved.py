"""tests: keys and values on the disk: what is read goes on as what was saved, and nothing else is read."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import parity
from canonical import calibrated
from canonical import tokens as random_tokens
from edgewise.errors import CacheError
from edgewise.graph import get_facts
from edgewise.runtime.model import Model
from edgewise.runtime.saved import Saved, load, save
from edgewise.runtime.session import Session
from edgewise.writer import write_model
from edgewise_plugins.cache import QuantizeCache
from edgewise_targets.ort.lower import LowerOrt
from toy import DYNAMIC, NAN, toy

TOKENS = np.random.default_rng(3).integers(0, NAN, 100).tolist()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return toy(tmp_path_factory.mktemp("toy"), computation="toy")


@pytest.fixture(scope="module")
def content(model: Model, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a good file holds."""
    path = tmp_path_factory.mktemp("good") / "good.safetensors"
    save(path, model, held(model, 20))
    return path.read_bytes()


def held(model: Model, count: int) -> Saved:
    session = Session(model, capacity=count)
    session.prefill(TOKENS[:count])
    return Saved(session.tokens, session.export(0, count))


def test_what_is_read_goes_on_as_what_was_saved(model: Model, tmp_path: Path) -> None:
    origin, found = Session(model, capacity=40), Session(model, capacity=3)
    origin.prefill(TOKENS[:30])
    origin.decode(TOKENS[30])
    origin.save(tmp_path / "cache")
    found.prefill([1, 2, 3])
    found.load(tmp_path / "cache")
    for token in TOKENS[31:36]:
        np.testing.assert_array_equal(found.decode(token), origin.decode(token))
    assert found.tokens.tolist() == TOKENS[:36]


def test_what_is_not_read_leaves_a_session_as_it_was(model: Model, tmp_path: Path) -> None:
    session = Session(model, capacity=9)
    session.prefill([1, 2, 3])
    (tmp_path / "cache").write_bytes(b"nothing")
    with pytest.raises(CacheError):
        session.load(tmp_path / "cache")
    assert session.tokens.tolist() == [1, 2, 3]


def test_no_tokens_are_not_saved(model: Model, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="cache is not written: there are no tokens"):
        Session(model, capacity=9).save(tmp_path / "cache")


def test_it_is_a_safetensors_file(model: Model, content: bytes) -> None:
    saved = held(model, 20)
    tensors = safetensors.numpy.load(content)
    np.testing.assert_array_equal(tensors.pop("tokens"), saved.tokens)
    assert sorted(tensors) == sorted(tensor.past for tensor in model.cache)
    for tensor, array in zip(model.cache, saved.arrays, strict=True):
        np.testing.assert_array_equal(tensors[tensor.past], array)


def test_the_same_is_written_the_same_for_its_owner_only(model: Model, content: bytes, tmp_path: Path) -> None:
    for _ in range(2):
        save(tmp_path / "cache", model, held(model, 20))
        assert (tmp_path / "cache").read_bytes() == content
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["cache"]


def header_of(content: bytes) -> dict[str, Any]:
    length = int.from_bytes(content[:8], "little")
    header: dict[str, Any] = json.loads(content[8 : 8 + length])
    return header


def with_metadata(content: bytes, **fields: str) -> bytes:
    header = header_of(content)
    header["__metadata__"] |= fields
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + int.from_bytes(content[:8], "little") :]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: b"", "its 0 bytes are not those of a safetensors file, or not all of them"),
        (lambda c: c[:7], "its 7 bytes are not those"),
        (lambda c: c[:200], "its 200 bytes are not those"),
        (lambda c: b"\xff" * 8 + c[8:], "are not those of a safetensors file"),
        (lambda c: c[:-1], r"bytes instead of [\d,]+: the file is damaged"),
        (lambda c: c + b"\0", r"bytes instead of [\d,]+: the file is damaged"),
        (lambda c: c[:-1] + bytes([c[-1] ^ 1]), "its content does not match its hash: the file is damaged"),
        (lambda c: safetensors.numpy.save({"a": np.ones(3)}), "these are not keys and values that edgewise saved"),
        (lambda c: with_metadata(c, format="2"), "it has format 2, and this edgewise reads 1"),
        (lambda c: with_metadata(c, model="other"), "it was saved from another bundle"),
        (lambda c: with_metadata(c, rotary="0"), "with the rotary table of another context than 256"),
        (lambda c: with_metadata(c, tokens="257"), "it holds 257 tokens, and the context is 256"),
        (lambda c: with_metadata(c, tokens="0"), "it holds 0 tokens"),
        (lambda c: with_metadata(c, tokens="9" * 30), "its header states no tokens: the file is damaged"),
        (lambda c: with_metadata(c, tokens="21"), "its header is not as it was written: the file is damaged"),
        (lambda c: with_metadata(c, blake2b="0" * 64), "its content does not match its hash"),
    ],
)
def test_anything_else_is_refused_with_one_line(
    model: Model, content: bytes, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    (tmp_path / "cache").write_bytes(spoil(content))
    with pytest.raises(CacheError, match=message) as caught:
        load(tmp_path / "cache", model)
    assert str(tmp_path / "cache") in str(caught.value)
    assert "\n" not in str(caught.value)


@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_any_bit_that_flips_is_noticed(
    model: Model, content: bytes, tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    path, spoilt = tmp_path_factory.getbasetemp() / "flipped", bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    spoilt[place % (header if place % 2 else len(content))] ^= 1 << bit
    path.write_bytes(spoilt)
    with pytest.raises(CacheError):
        load(path, model)


def test_what_is_no_file_is_refused(model: Model, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("missing", "No such file"), ("pipe", "not a plain file"), (".", "Is a directory")):
        with pytest.raises(CacheError, match=message):
            load(tmp_path / name, model)


def test_the_table_of_another_context_is_refused(tmp_path: Path) -> None:
    short, long = (toy(tmp_path, rotary=DYNAMIC, context=context, computation="toy") for context in (40, 128))
    save(tmp_path / "cache", short, held(short, 20))
    assert len(load(tmp_path / "cache", short).tokens) == 20
    with pytest.raises(CacheError, match="the rotary table of another context than 128"):
        load(tmp_path / "cache", long)


def test_a_cache_in_int8_is_kept_as_it_is(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    canonical = parity.export("qwen2", tmp_path_factory.getbasetemp())
    rounded = QuantizeCache()(calibrated(canonical, random_tokens(8, 40))).model
    facts = get_facts(rounded)
    write_model(LowerOrt()(rounded).model, tmp_path / "model.onnx")
    model = Model(tmp_path / "model.onnx", facts, threads=1, computation="int8")
    origin, found = Session(model, capacity=40), Session(model, capacity=40)
    origin.prefill(TOKENS[:20])
    origin.save(tmp_path / "cache")
    found.load(tmp_path / "cache")
    np.testing.assert_array_equal(found.decode(5), origin.decode(5))
    kept = safetensors.numpy.load_file(tmp_path / "cache")
    assert {str(array.dtype) for name, array in kept.items() if name != "tokens"} == {"int8"}


def test_a_model_of_no_bundle_has_nothing_to_be_known_by(tmp_path: Path) -> None:
    model = toy(tmp_path)
    with pytest.raises(CacheError, match="can be saved of a model that is in a bundle; this one is not"):
        save(tmp_path / "cache", model, held(model, 3))


def test_what_cannot_be_written_leaves_nothing(model: Model, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"cannot be written: No such file"):
        save(tmp_path / "no folder" / "cache", model, held(model, 3))
    (tmp_path / "folder").mkdir()
    with pytest.raises(CacheError, match=r"folder cannot be written: Is a directory"):
        save(tmp_path / "folder", model, held(model, 3))
    assert os.listdir(tmp_path) == ["folder"]


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from edgewise.runtime.saved import Saved, save
from toy import facts, toy
model = toy(Path(sys.argv[2]), computation="toy")
saved = Saved(np.zeros(200, np.int64), [np.zeros((t.heads, 200, t.dim), np.float32) for t in model.cache])
print("ready", flush=True)
while True:
    save(Path(sys.argv[2]) / "cache", model, saved)
"""


def test_a_writer_that_is_killed_leaves_a_whole_file(model: Model, tmp_path: Path) -> None:
    for turn in range(5):
        arguments = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(tmp_path)]
        writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        while not (tmp_path / "cache").exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(0.003 * turn)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        assert len(load(tmp_path / "cache", model).tokens) == 200
