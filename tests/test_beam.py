"""tests: beam search: that of transformers, and by brute force; its rows, its processors, and what ends it."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgewise.bundle.read import Bundle
from edgewise.errors import GenerationError, OptionError
from edgewise.options import parse, record
from edgewise.registry import registry
from edgewise.runtime.runner import Runner
from edgewise.search.beam import Beam
from edgewise.search.greedy import Greedy
from edgewise.search.length import MinLength
from edgewise.search.named import bound
from edgewise.search.ngrams import NoRepeatNgram
from edgewise.search.penalties import PresencePenalty, RepetitionPenalty
from edgewise.search.protocol import FloatArray, LogProb, Processor
from generating import ENDS, LIMIT, PROMPT, Tiny
from tables import Letters, Model, Texts, log_softmax, search, table
from tiny import VOCABULARY


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return Tiny(tmp_path_factory.mktemp("beam"))


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize(("num_beams", "length_penalty"), [(2, 1.0), (3, 0.0), (4, -1.0), (4, 2.5)])
def test_sequences_and_scores_are_those_of_transformers(
    tiny: Tiny, ends: str, early_stopping: Any, num_beams: int, length_penalty: float
) -> None:
    options = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
    expected = tiny.generate(ENDS[ends], num_return_sequences=num_beams, **options)
    beam = Beam(num_return=num_beams, **options)
    found = search(beam, Texts(tiny.scores), limit=LIMIT, prompt=PROMPT, eos=ENDS[ends])
    assert [each.tokens for each in found] == [tokens for tokens, _ in expected]
    assert [each.score for each in found] == pytest.approx([score for _, score in expected], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "processors"),
    [
        ({"repetition_penalty": 1.8}, (RepetitionPenalty(1.8),)),
        ({"no_repeat_ngram_size": 2, "min_new_tokens": 6}, (NoRepeatNgram(2), MinLength(new_tokens=6))),
    ],
)
@pytest.mark.parametrize("ends", ["rarely", "often"])
def test_processors_apply_to_the_log_probabilities_of_each_beam_as_in_transformers(
    tiny: Tiny, ends: str, options: dict[str, Any], processors: tuple[Processor, ...]
) -> None:
    expected = tiny.generate(ENDS[ends], num_beams=4, num_return_sequences=4, **options)
    vocabulary = Letters(eos=ENDS[ends], size=VOCABULARY)
    beam = Beam(num_beams=4, num_return=4)
    chain = tuple(bound(processor, vocabulary) for processor in processors)
    found = search(beam, Texts(tiny.scores), limit=LIMIT, prompt=PROMPT, eos=ENDS[ends], processors=chain)
    assert [each.tokens for each in found] == [tokens for tokens, _ in expected]
    assert [each.score for each in found] == pytest.approx([score for _, score in expected], rel=1e-4)


def test_a_wide_beam_finds_the_best_of_all_sequences() -> None:
    """Brute force: with as many beams as there are sequences, nothing is lost."""
    vocabulary, limit, end = 3, 4, 2
    model = table(0, vocabulary)
    for penalty in (0.0, 1.0, 2.0):
        found = search(
            Beam(num_beams=81, num_return=5, length_penalty=penalty, early_stopping="never"),
            Texts(model),
            limit=limit,
            eos=(end,),
        )
        every = exhausted(model, vocabulary, limit, end, penalty)[:5]
        assert [each.tokens for each in found] == [tokens for _, tokens in every]
        assert [each.score for each in found] == pytest.approx([score for score, _ in every], rel=1e-5)


def exhausted(
    model: Model, vocabulary: int, limit: int, end: int, penalty: float
) -> list[tuple[float, tuple[int, ...]]]:
    """All sequences up to the limit with their scores, best first."""
    scored = {}
    for tokens in product(range(vocabulary), repeat=limit):
        cut = tokens[: tokens.index(end) + 1] if end in tokens else tokens
        total = sum(float(log_softmax(model((1, 2, *cut[:i])))[cut[i]]) for i in range(len(cut)))
        scored[cut] = total / len(cut) ** penalty
    return sorted(((score, tuple(t for t in cut if t != end)) for cut, score in scored.items()), reverse=True)


def test_one_beam_is_greedy() -> None:
    for seed in range(5):
        model = table(seed, 20)
        greedy = search(Greedy(), Texts(model), limit=12, eos=(3,))
        assert search(Beam(num_beams=1), Texts(model), limit=12, eos=(3,))[0].tokens == greedy[0].tokens


@pytest.mark.parametrize("num_beams", [1, 2, 5])
def test_a_beam_has_no_more_rows_than_it_keeps_sequences_and_copies_few(num_beams: int) -> None:
    texts = Texts(table(0, 30))
    search(Beam(num_beams=num_beams), texts, limit=20, eos=(3,))
    assert texts.most <= num_beams
    assert texts.copies <= 20 * (num_beams - 1)


def test_each_sequence_says_what_ended_it() -> None:
    def ended(tokens: tuple[int, ...], logprobs: tuple[LogProb, ...]) -> str | None:
        return "stop" if tokens[-1] % 7 == 5 else None

    model = table(1, 20, scale=0.5)
    found = search(Beam(num_beams=8, num_return=8), Texts(model), limit=4, eos=(3,), ended=ended)
    assert {each.reason for each in found} == {"stop", "eos", "length"}
    for each in found:
        assert all(token != 3 and token % 7 != 5 for token in each.tokens[:-1])
        assert (len(each.tokens) == 4) or each.reason != "length"
        assert (each.reason == "stop") == (each.tokens[-1:] in [(5,), (12,), (19,)])


def test_log_probabilities_are_those_of_the_model_itself() -> None:
    model = table(2, 20)
    found = search(
        Beam(num_beams=4, num_return=4),
        Texts(model),
        limit=6,
        eos=(3, 4, 5),
        logprobs=2,
        processors=(PresencePenalty(3.0),),
    )
    for each in found:
        assert [chosen.token for chosen in each.logprobs] == list(each.tokens)
        for i, chosen in enumerate(each.logprobs):
            expected = log_softmax(model((1, 2, *each.tokens[:i])))
            assert chosen.logprob == pytest.approx(expected[each.tokens[i]], abs=1e-5)
            assert [token for token, _ in chosen.top] == np.argsort(-expected)[:2].tolist()


class Only:
    """A processor that leaves few tokens, and none after some steps, as a grammar may."""

    def __init__(self, allowed: Callable[[int], list[int]]) -> None:
        self.allowed = allowed

    def start(self, prompt: tuple[int, ...]) -> int:
        return 0

    def advance(self, state: int, tokens: tuple[int, ...]) -> int:
        return state + len(tokens)

    def apply(self, state: int, logits: FloatArray) -> FloatArray:
        kept = np.full_like(logits, -np.inf)
        kept[self.allowed(state)] = logits[self.allowed(state)]
        return kept


def test_fewer_continuations_than_beams_are_no_problem() -> None:
    for allowed, expected in (([9], [(9, 9, 9)]), ([3, 9], [(), (9,), (9, 9), (9, 9, 9)])):
        processor = Only(lambda step, allowed=allowed: allowed)  # type: ignore[misc]
        beam = Beam(num_beams=5, num_return=5, early_stopping="never")
        found = search(beam, Texts(table(0, 20)), limit=3, eos=(3,), processors=(processor,))
        assert sorted(each.tokens for each in found) == expected


def test_a_beam_without_a_token_left_says_so() -> None:
    processor = Only(lambda step: [] if step == 2 else [8, 9])
    with pytest.raises(GenerationError, match="all are banned"):
        search(Beam(), Texts(table(0, 20)), limit=5, processors=(processor,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams is 0; it must be 1 or above"),
        ({"num_return": 5}, "num_return is 5; it must be from 1 to num_beams (4)"),
        ({"num_return": 0}, "num_return is 0"),
        ({"length_penalty": float("nan")}, "length_penalty is nan; it must be from -50.0 to 50.0"),
        ({"length_penalty": 1e9}, "length_penalty is 1000000000.0"),
        ({"early_stopping": "always"}, "early_stopping"),
    ],
)
def test_an_option_out_of_range_is_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Beam, options, what="search 'beam'")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_beam_is_found_by_its_name_and_written_back() -> None:
    assert registry().searches.get("beam") is Beam
    beam = Beam(num_beams=6, num_return=2, early_stopping="never")
    assert parse(Beam, record(beam), what="beam") == beam


def test_a_bundle_searches_as_transformers_does(float_runner: Runner, pycoder: Path) -> None:
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(pycoder, dtype=torch.float32)
    prompt = float_runner.tokenizer.encode("def read_json(")
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        num_beams=4,
        num_return_sequences=2,
        max_new_tokens=24,
        return_dict_in_generate=True,
        output_scores=True,
    )
    result = float_runner.generate(prompt, max_tokens=24, search={"name": "beam", "num_beams": 4, "num_return": 2})
    assert [each.tokens for each in result.completions] == [tuple(row[len(prompt) :].tolist()) for row in out.sequences]
    assert [each.score for each in result.completions] == pytest.approx(out.sequences_scores.tolist(), rel=1e-4)


def test_stop_strings_and_time_end_beams(pycoder_bundle: Bundle) -> None:
    beam = Beam(num_beams=3, num_return=3)
    with Runner.open(pycoder_bundle.path, threads=1) as runner:
        stopped = runner.generate("import os\n", max_tokens=30, search=beam, stop="\n", logprobs=0)
        assert stopped.finish_reason == "stop"
        assert all("\n" not in each.text for each in stopped.completions)
        assert all(len(each.logprobs) == len(each.tokens) for each in stopped.completions)
        late = runner.generate("import os\n", max_tokens=30, search=beam, time_limit=1e-9)
        assert [(each.finish_reason, len(each.tokens)) for each in late.completions] == [("time", 1)] * 3
