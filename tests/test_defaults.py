"""tests: what a checkpoint's generation_config.json asks for, beside transformers' `generate` with the same file."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from edgewise.errors import OptionError
from edgewise.pipeline import build
from edgewise.recipe import Recipe
from edgewise.runtime.defaults import default_processors, default_search, eos_tokens
from edgewise.runtime.result import Result
from edgewise.runtime.runner import Runner
from edgewise.search.bans import BadWords, SuppressTokens
from edgewise.search.beam import Beam
from edgewise.search.beam_sample import BeamSample
from edgewise.search.bias import Bias, LogitBias
from edgewise.search.greedy import Greedy
from edgewise.search.guided import Guided
from edgewise.search.length import LengthDecay, MinLength
from edgewise.search.ngrams import NoRepeatNgram
from edgewise.search.penalties import RepetitionPenalty
from edgewise.search.protocol import Processor, Search
from edgewise.search.sample import Sample

PROMPT = "def read_json("
NEVER = Beam(num_beams=3, length_penalty=2.0, early_stopping="never")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, Greedy()),
        ({"do_sample": False, "temperature": 0.3}, Greedy()),
        ({"do_sample": True}, Sample(top_k=50)),
        ({"do_sample": True, "top_k": 0, "temperature": None}, Sample()),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.1},
            Sample(temperature=0.7, top_k=20, top_p=0.8, min_p=0.1),
        ),
        (
            {"do_sample": True, "top_k": 0, "typical_p": 0.9, "epsilon_cutoff": 0.01, "eta_cutoff": 0.02},
            Sample(typical_p=0.9, epsilon_cutoff=0.01, eta_cutoff=0.02),
        ),
        ({"guidance_scale": 1.5}, Guided(search=Greedy(), scale=1.5)),
        ({"num_beams": 3, "length_penalty": 2, "early_stopping": "never"}, NEVER),
        (
            {"num_beams": 3, "do_sample": True, "top_p": 0.9},
            BeamSample(num_beams=3, search=Sample(top_k=50, top_p=0.9)),
        ),
        ({"num_beams": 1, "no_repeat_ngram_size": 0, "bad_words_ids": None, "max_length": 20}, Greedy()),
    ],
)
def test_the_search_is_what_the_checkpoint_asks_for(config: dict[str, Any], expected: Search) -> None:
    assert default_search(config) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": [], "min_length": None}, ()),
        (
            {"suppress_tokens": [5], "repetition_penalty": 1.1, "sequence_bias": [[[3, 4], -1.0]]},
            (LogitBias(sequences=(Bias((3, 4), -1.0),)), RepetitionPenalty(1.1), SuppressTokens((5,))),
        ),
        ({"no_repeat_ngram_size": 3, "bad_words_ids": [[7]]}, (NoRepeatNgram(3), BadWords(sequences=((7,),)))),
        ({"min_length": 5, "min_new_tokens": 2}, (MinLength(tokens=5), MinLength(new_tokens=2))),
        ({"exponential_decay_length_penalty": [4, 1.2]}, (LengthDecay(4, 1.2),)),
        ({"begin_suppress_tokens": [5, 6]}, (SuppressTokens((5, 6), begin=True),)),
    ],
)
def test_so_are_the_processors(config: dict[str, Any], expected: tuple[Processor, ...]) -> None:
    assert default_processors(config) == expected


@pytest.mark.parametrize("asked", [{"num_beam_groups": 2}, {"penalty_alpha": 0.6}, {"forced_eos_token_id": 3}])
def test_what_no_search_does_by_default_is_not_ignored(asked: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"generation_config.json asks for {next(iter(asked))}=.*; name a search"):
        default_search(asked)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"exponential_decay_length_penalty": 3}, "exponential_decay_length_penalty cannot be 3"),
        ({"exponential_decay_length_penalty": [3]}, r"exponential_decay_length_penalty cannot be \[3\]"),
        ({"sequence_bias": [3]}, r"sequence_bias cannot be \[3\]"),
        ({"bad_words_ids": "no"}, "bad_words_ids: .* expected a list"),
        ({"repetition_penalty": -1}, "repetition_penalty: repetition_penalty is -1.0"),
    ],
)
def test_what_cannot_be_read_is_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"generation_config.json: {message}") as caught:
        default_processors(config)
    assert "\n" not in str(caught.value)


def test_the_end_is_what_the_generation_config_says_or_else_the_model() -> None:
    assert eos_tokens({}, (3, 4)) == {3, 4}
    assert eos_tokens({"eos_token_id": 7}, (3,)) == {7}
    assert eos_tokens({"eos_token_id": [7, 8]}, (3,)) == {7, 8}


# The whole way: a checkpoint with such a file, built and asked, beside transformers.

ASKED: dict[str, dict[str, Any]] = {
    "repetition": {"repetition_penalty": 1.3},
    "n-grams": {"no_repeat_ngram_size": 2},
    "bad words": {"bad_words_ids": [[307], [274, 15]]},
    "biases": {"sequence_bias": [[[307], -20.0], [[274, 15], -20.0]]},
    "suppressed": {"suppress_tokens": [307], "begin_suppress_tokens": [274]},
    "lengths": {"min_new_tokens": 20, "exponential_decay_length_penalty": [4, 1.3]},
    "guidance": {"guidance_scale": 2.5},
    "beams": {"num_beams": 3, "length_penalty": 0.5},
    "everything": {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": [[307]],
        "min_length": 30,
        "exponential_decay_length_penalty": [20, 1.2],
        "guidance_scale": 1.5,
    },
}


@pytest.fixture(scope="module")
def opened(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, Any]], Runner]:
    """The demo in float32, as if its file asked for more."""
    folder = tmp_path_factory.mktemp("defaults")
    build(pycoder, output=folder / "float.edge", recipe=Recipe(), load_check=False)

    def open_with(config: dict[str, Any]) -> Runner:
        path = folder / f"{len(list(folder.iterdir()))}.edge"
        shutil.copytree(folder / "float.edge", path)
        file = path / "generation_config.json"
        known = json.loads(file.read_bytes()) if file.exists() else {}
        file.write_text(json.dumps({**known, **config}))
        return Runner.open(path, threads=1, verify=False)

    return open_with


@pytest.fixture(scope="module")
def theirs(pycoder: Path) -> Callable[[dict[str, Any]], list[int]]:
    """What transformers generates in float32, the token that ends it included."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(pycoder, dtype=torch.float32)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(pycoder)
    ids = tokenizer(PROMPT, return_tensors="pt")

    def generated(asked: dict[str, Any]) -> list[int]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for a model this small, seven times faster than two
        found: list[int] = model.generate(**ids, do_sample=False, max_new_tokens=40, **asked)[0].tolist()
        torch.set_num_threads(threads)
        return found[ids["input_ids"].shape[1] :]

    return generated


@pytest.mark.parametrize("name", ASKED)
def test_a_checkpoint_s_own_way_is_that_of_transformers(
    name: str, opened: Callable[[dict[str, Any]], Runner], theirs: Callable[[dict[str, Any]], list[int]]
) -> None:
    plain, expected = theirs({}), theirs(ASKED[name])
    assert plain != expected, "the test needs an option that changes the text"
    with opened(ASKED[name]) as runner:
        assert _whole(runner.generate(PROMPT, max_tokens=40)) == expected
        assert _whole(runner.generate(PROMPT, max_tokens=40, search="greedy")) == plain, "a search has no more"


def _whole(result: Result) -> list[int]:
    return [*result.tokens, *((0,) if result.finish_reason == "eos" else ())]
