"""tests: prompts that nobody would think of: whatever is typed, the text that comes out in pieces is the whole text."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library

from edgewise.bundle.read import Bundle
from edgewise.errors import GenerationError
from edgewise.runtime.runner import Runner
from edgewise.runtime.track import Track
from edgewise.search.stops import StopStrings
from edgewise.text.stream import TextStream
from edgewise.text.tokenizer import Tokenizer
from toy_tokenizers import CONTROL, byte_level, metaspace, sentencepiece, with_control

COUNT = 10_000
PIECES = (
    *("<|endoftext|>", "<|user|>", "<|assistant|>", "<|pad|>", "<|", "|>", "endoftext|>", "<|endof", *CONTROL),
    *("\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1ee\U0001f1f3", "\u2764\ufe0f"),
    *("\u0645\u0631\u062d\u0628\u0627", "\u05e9\u05dc\u05d5\u05dd", "\u200f", "\u202e", "\u0661"),  # right to left
    *("\u4f60\u597d", "\ud55c\uae00", "\u0938\u094d\u0924\u0947", "e\u0301", "\u00e9", "z\u0335", "\u2028", "\ufeff"),
    *("\x00", "\x1b[0m", "\r\n", "\n\n", "\t", "   ", " ", "\u00a0", "\ufffd", "\u2581", "\U0010ffff", "\ue000"),
    *("def f(x):", "return", "the", "A", "0", "12345", "%s", "\\", "'", '"', "{{", "}}", "__", "<0xE2>", "\u0120"),
)  # fmt: skip


def prompts(count: int, seed: int) -> Iterator[str]:
    """Texts of one to eight pieces; one in ten has bytes that are no UTF-8, as an operating system hands them over."""
    rng = random.Random(seed)
    for number in range(count):
        pieces = rng.choices(PIECES, k=rng.randint(1, 8))
        if number % 10 == 0:
            pieces.insert(rng.randrange(len(pieces) + 1), rng.randbytes(3).decode("utf-8", "surrogateescape"))
        yield "".join(pieces)


def is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


@pytest.fixture(scope="module")
def tokenizers(pycoder: Path) -> tuple[Tokenizer, ...]:
    makes: tuple[Callable[[], Library], ...] = (byte_level, sentencepiece, metaspace)
    return Tokenizer.load(pycoder), *map(with_control, makes)


def test_streamed_pieces_are_the_whole_text(tokenizers: tuple[Tokenizer, ...]) -> None:
    refused = 0
    for number, text in enumerate(prompts(COUNT, seed=0)):
        tokenizer = tokenizers[number % len(tokenizers)]
        if not is_unicode(text):
            with pytest.raises(GenerationError, match="not valid Unicode"):
                tokenizer.encode(text)
            refused += 1
            continue
        tokens = tokenizer.encode_within(text)
        assert not tokenizer.control.keys() & set(tokens), "what is typed is text"
        stream = TextStream(tokenizer)
        streamed = [stream.push(token) for token in tokens] + [stream.flush()]
        assert "".join(streamed) == tokenizer.decode(tokens), ascii(text)
        if number % len(tokenizers) < 2:  # these lose nothing
            assert tokenizer.decode(tokens) == text or "\ufffd" in text
    assert 500 < refused < 1000


def test_a_stop_string_cuts_where_it_begins_and_nothing_of_it_is_handed_out(tokenizers: tuple[Tokenizer, ...]) -> None:
    rng = random.Random(1)
    for number, text in enumerate(filter(is_unicode, prompts(COUNT, seed=1))):
        tokenizer = tokenizers[number % len(tokenizers)]
        tokens = tokenizer.encode_within(text)
        whole = tokenizer.decode(tokens)
        start = rng.randrange(len(whole) + 1)
        stop = whole[start : start + rng.randint(1, 6)] or "never there"
        if "\ufffd" in stop:
            continue
        track = Track((StopStrings((stop,)),), TextStream(tokenizer), lambda: 0.0)
        handed_out = [track.push([token]).text for token in tokens] + [track.finish("eos").text]
        assert "".join(handed_out) == track.text == whole.partition(stop)[0], (ascii(text), ascii(stop))
        assert track.reason == ("stop" if stop in whole else "eos")


def test_the_model_takes_them_too(pycoder_bundle: Bundle) -> None:
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        for text in prompts(60, seed=2):
            if not is_unicode(text):
                with pytest.raises(GenerationError, match="not valid Unicode"):
                    runner.generate(text)
                continue
            stream = runner.stream(text, max_tokens=6, search="sample", seed=len(text), stop=["\n", "\u4f60"])
            pieces = [piece.text for piece in stream]
            result = stream.result()
            assert "".join(pieces) == result.text
            tokens = runner.tokenizer.encode(text)
            spelled = runner.tokenizer.decode([*tokens, *result.tokens]).removeprefix(runner.tokenizer.decode(tokens))
            assert result.finish_reason == "stop" or result.text == spelled or "\ufffd" in spelled
