"""tests: toy tokenizers of the kinds in use, with control tokens that overlap."""

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

from edgewise.text.tokenizer import Tokenizer

CONTROL = ("<s>", "<|user|>", "<|end|>", "<|e", "nd|>")  # the last two overlap the third


def byte_level() -> Library:
    """As GPT-2 and most since: bytes, with a few merges, some of them across the parts of characters."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("\u0120", "a"),
        ("\u00f0", "\u0141"),
        ("\u010a", "\u010a"),
        ("h", "e"),
        ("he", "l"),
        ("\u00e2", "\u0124"),
    ]
    vocabulary = {token: number for number, token in enumerate([*alphabet, *(a + b for a, b in merges)])}
    library = Library(models.BPE(vocab=vocabulary, merges=merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    return library


def sentencepiece() -> Library:
    """As Llama 2: a mark for spaces, one before the first word, bytes for what has no token."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", *"abcdefghilmnorstu", "he", "\u2581a"]
    merges = [("h", "e"), ("\u2581", "a")]
    library = Library(models.BPE({p: i for i, p in enumerate(pieces)}, merges, byte_fallback=True, unk_token="<unk>"))
    library.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    strip = decoders.Strip(" ", 1, 0)
    library.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), strip]
    )
    return library


def metaspace() -> Library:
    """As T5 and Gemma's first: a unigram model with the Metaspace decoder."""
    pieces = [("<unk>", 0.0), ("\u2581", -2.0), *((letter, -3.0) for letter in "abcdehlnor"), ("\u2581he", -3.5)]
    library = Library(models.Unigram(pieces, unk_id=0))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    return library


def with_control(make: Callable[[], Library]) -> Tokenizer:
    library = make()
    library.add_special_tokens([AddedToken(text, normalized=False) for text in CONTROL])
    first = library.token_to_id("<s>")
    library.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", first)])
    return Tokenizer(library)


TOKENIZERS = {make.__name__: with_control(make) for make in (byte_level, sentencepiece, metaspace)}
KINDS = pytest.mark.parametrize("kind", TOKENIZERS)
WITH_BYTES = pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])

texts = st.text(max_size=60) | st.lists(
    st.sampled_from(
        [*CONTROL, "hello", " a", "\n\n", "\U0001f600", "\u0645\u0631\u062d", "\u4f60", "\ufffd", "<|", "|>"]
    )
).map("".join)
