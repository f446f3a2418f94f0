"""tests: fewer tokens: any text is written and read as before, and what was seen is the same, token for token."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

import tiny
from canonical import graph, logits, tokens
from cases import CASES
from edgewise.errors import EdgewiseError, GraphError
from edgewise.graph import get_facts
from edgewise.text.tokenizer import Tokenizer
from edgewise_plugins.vocabulary.choose import Vocabulary
from edgewise_plugins.vocabulary.kinds import Bpe
from edgewise_plugins.vocabulary.rewrite import named, renumbered, tokenizer_with
from edgewise_plugins.vocabulary.rows import keep_tokens, kept_mass
from toy_tokenizers import CONTROL, byte_level, metaspace, sentencepiece, with_control

PYCODER = Path(__file__).parent.parent / "examples" / "pycoder"
SEEN = "he had a child, the end"


def pieces() -> Library:
    """A unigram model with bytes for what has no piece, as Llama's first and Gemma's are written by some."""
    known = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    known += [("\u2581", -2.0), *((letter, -3.0 - i / 8) for i, letter in enumerate("abcdefhlnorstu\u00e9"))]
    known += [("\u2581he", -3.5), ("\u2581had", -4.0), ("\u2581the", -3.6), ("end", -4.0), ("ch", -4.5)]
    library = Library(models.Unigram(known, unk_id=0, byte_fallback=True))
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return library


def words() -> Library:
    """The longest piece that fits, again and again."""
    letters = "abcdehilnt,"
    known = ["[UNK]", *letters, *(f"##{letter}" for letter in letters), "he", "##he", "had", "the", "child", "##nd"]
    library = Library(models.WordPiece({token: i for i, token in enumerate(known)}, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.decoder = decoders.WordPiece(cleanup=False)
    return library


def ranked() -> Library:
    """A tokenizer that takes whole words as they are, and merges others: as those that come from ranks alone."""
    written = json.loads((PYCODER / "tokenizer.json").read_text("utf-8"))
    written["model"]["ignore_merges"] = True
    return Library.from_str(json.dumps(written))


MADE = {make.__name__: make for make in (byte_level, sentencepiece, metaspace, pieces, words, ranked)}


def pruned(tokenizer: Tokenizer, text: str, *, multiple: int = 1) -> tuple[Tokenizer, dict[int, int]]:
    """A tokenizer with the tokens that a text needs, and the new numbers of the old ones."""
    vocabulary = Vocabulary(tokenizer, len(tokenizer.vocabulary))
    kept = vocabulary.choose(vocabulary.seen([text]), (), multiple=multiple).tolist()
    written = tokenizer_with(vocabulary, kept, tokenizer.serialize().encode())
    return Tokenizer(Library.from_str(written)), {old: new for new, old in enumerate(kept)}


@cache
def both(name: str) -> tuple[Tokenizer, Tokenizer]:
    tokenizer = Tokenizer.load(PYCODER) if name == "pycoder" else with_control(MADE[name])
    return tokenizer, pruned(tokenizer, SEEN)[0]


@pytest.mark.parametrize("name", ["pycoder", *MADE])
@given(text=st.text(st.one_of(st.sampled_from("abcdehln\u00e9 \n\u2581"), st.characters(codec="utf-8")), max_size=40))
def test_any_text_is_read_as_it_was_before(name: str, text: str) -> None:
    before, after = both(name)
    read = after.decode(after.encode_within(text))
    assert read == before.decode(before.encode_within(text))
    if name in ("pycoder", "ranked", "byte_level"):
        assert read == text


@pytest.mark.parametrize("name", MADE)
def test_a_text_that_was_seen_is_written_in_the_same_tokens(name: str) -> None:
    before = with_control(MADE[name])
    after, numbers = pruned(before, SEEN)
    assert len(after.vocabulary) < len(before.vocabulary) or name in ("byte_level", "metaspace")
    assert after.encode(SEEN) == tuple(numbers[token] for token in before.encode(SEEN))
    assert [after.vocabulary[new] for new in numbers.values()] == [before.vocabulary[old] for old in numbers]


def test_the_text_of_the_demo_is_written_in_the_same_tokens_by_half_as_many() -> None:
    text, before = (PYCODER / "heldout.txt").read_text("utf-8")[:20_000], Tokenizer.load(PYCODER)
    after, numbers = pruned(before, text)
    assert len(numbers) < len(before.vocabulary) / 2
    assert after.encode(text) == tuple(numbers[token] for token in before.encode(text))


def test_control_tokens_stay_and_are_found_by_their_new_numbers() -> None:
    before = with_control(sentencepiece)
    after, numbers = pruned(before, "a")
    assert set(after.control.values()) == set(CONTROL)
    rendered = "<|user|>a<|end|>"
    assert after.encode_rendered(rendered, {}) == tuple(
        numbers[token] for token in before.encode_rendered(rendered, {})
    )
    assert after.encode("a")[0] == numbers[before.encode("a")[0]]  # what its file puts around a text


def test_of_several_merges_that_make_a_token_those_stay_that_do() -> None:
    """Tokenizers that come from ranks alone list every pair of which a token can be put together."""
    merges = [["b", "c"], ["a", "b"], ["a", "bc"], ["ab", "c"]]
    written = {"vocab": {t: i for i, t in enumerate(["a", "b", "c", "bc", "ab", "abc"])}, "merges": merges}
    assert set(Bpe(written).parts("abc")) == {"a", "b", "c", "bc", "abc"}
    assert Bpe(written).keep(["a", "b", "c", "bc", "abc"])["merges"] == [["b", "c"], ["a", "bc"]]


def test_a_multiple_is_filled_with_the_tokens_that_come_first() -> None:
    before = Tokenizer.load(PYCODER)
    exact, full = (pruned(before, SEEN, multiple=multiple)[1] for multiple in (1, 128))
    assert len(full) % 128 == 0
    assert set(exact) < set(full)
    more = sorted(set(full) - set(exact))
    assert more[0] == min(set(before.vocabulary) - set(exact))


def test_a_model_with_more_rows_than_tokens_keeps_some_of_them_where_a_multiple_wants_it() -> None:
    tokenizer = with_control(byte_level)
    count = len(tokenizer.vocabulary)
    kept = Vocabulary(tokenizer, count + 20).choose(range(count), (), multiple=count + 8)
    assert kept.tolist() == list(range(count + 8))


@pytest.mark.parametrize("case", ["llama", "llama tied", "gemma2", "qwen2_moe"])
def test_fewer_rows_give_the_scores_of_those_that_stay(case: str, tmp_path: Path) -> None:
    model = graph(tiny.checkpoint(CASES[case].family, tmp_path, **CASES[case].overrides))
    kept = np.array([0, 1, 2, 5, *range(7, 100, 3)])
    sequences = tokens(2, 16, vocabulary=len(kept), seed=4)
    expected = logits(model, kept[sequences])
    powers = np.exp(expected.astype(np.float64))
    mass = kept_mass(model, kept[sequences], kept, context=None)
    assert mass == pytest.approx((powers[:, kept].sum(1) / powers.sum(1)).mean(), rel=1e-6)
    keep_tokens(model, kept)
    np.testing.assert_allclose(logits(model, sequences), expected[:, kept], atol=1e-5)
    facts = get_facts(model)
    assert (facts.vocab_size, facts.bos, facts.eos, facts.pad) == (len(kept), 1, (2,), 0)
    assert {value.shape[-1] for value in model.graph.outputs if value.name == "logits" and value.shape} == {len(kept)}


def test_every_number_of_a_token_in_a_configuration_is_a_new_one() -> None:
    config = {
        "bos_token_id": 10,
        "eos_token_id": [20, 30],
        "pad_token_id": -1,
        "suppress_tokens": [40],
        "bad_words_ids": [[10, 20], [50]],
        "sequence_bias": [[[60], -1.5]],
        "text_config": {"eos_token_id": 20, "hidden_size": 10},
        "added_tokens_decoder": {"70": {"content": "<s>"}},
        "top_k": 10,
        "decoder_start_token_id": None,
    }
    assert named(config) == {10, 20, 30, 40, 50, 60, 70}
    assert renumbered(config, lambda number: number // 10) == {
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": -1,
        "suppress_tokens": [4],
        "bad_words_ids": [[1, 2], [5]],
        "sequence_bias": [[[6], -1.5]],
        "text_config": {"eos_token_id": 2, "hidden_size": 10},
        "added_tokens_decoder": {"7": {"content": "<s>"}},
        "top_k": 10,
        "decoder_start_token_id": None,
    }


def suffixed() -> Library:
    return Library(models.BPE({"a</w>": 0, "a": 1}, [], end_of_word_suffix="</w>"))


def whole_words() -> Library:
    return Library(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (suffixed, "BPE with end_of_word_suffix = '</w>' is not known to prune"),
        (whole_words, "a model of the kind 'WordLevel' is not known to prune; known: BPE, Unigram, WordPiece"),
    ],
)
def test_a_tokenizer_of_another_kind_is_one_line(make: Callable[[], Library], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        pruned(Tokenizer(make()), "a")


def test_a_control_token_that_the_model_has_no_row_for_is_one_line() -> None:
    tokenizer = with_control(byte_level)
    with pytest.raises(EdgewiseError, match="has to stay, and the model has no row for it: it has 260"):
        Vocabulary(tokenizer, 260).choose({1, 2}, (), multiple=1)
