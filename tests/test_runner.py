"""tests: the runner: text in, text out, on the demo bundle."""

import dataclasses
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from edgewise.bundle.read import Bundle
from edgewise.errors import ContextOverflow, EdgewiseError, GenerationError, OptionError
from edgewise.runtime.result import Piece
from edgewise.runtime.runner import Runner
from edgewise.search.penalties import RepetitionPenalty
from edgewise.search.protocol import FloatArray
from edgewise.search.sample import Sample
from edgewise.search.stops import StopStrings
from edgewise.text.chat import ChatTemplate

PROMPT = "def read_json("
TEMPLATE = "{% for m in messages %}<|user|>{{ m.content }}\n{% endfor %}<|assistant|>\n"


@pytest.fixture(scope="module")
def runner(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def oracle(pycoder: Path) -> Callable[..., list[int]]:
    """What transformers generates in float32, without the token that ends it."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(pycoder, dtype=torch.float32)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(pycoder)

    def greedy(prompt: str, count: int, **options: Any) -> list[int]:
        ids, threads = tokenizer(prompt, return_tensors="pt"), torch.get_num_threads()
        torch.set_num_threads(1)  # for a model this small, seven times faster than two
        out = model.generate(**ids, do_sample=False, max_new_tokens=count, **options)
        torch.set_num_threads(threads)
        tokens: list[int] = out[0, ids["input_ids"].shape[1] :].tolist()
        return tokens[: tokens.index(0)] if 0 in tokens else tokens

    return greedy


@pytest.mark.parametrize("prompt", [PROMPT, "import os\n", "\u4f60\u597d \U0001f600"])
def test_greedy_is_that_of_transformers(float_runner: Runner, oracle: Callable[..., list[int]], prompt: str) -> None:
    assert list(float_runner.generate(prompt, max_tokens=64, search="greedy").tokens) == oracle(prompt, 64)


def test_greedy_with_a_repetition_penalty_is_too(float_runner: Runner, oracle: Callable[..., list[int]]) -> None:
    result = float_runner.generate(PROMPT, max_tokens=64, search="greedy", processors=[RepetitionPenalty(1.3)])
    assert list(result.tokens) == oracle(PROMPT, 64, repetition_penalty=1.3)


def test_a_result_has_the_new_text_and_tokens_only(runner: Runner) -> None:
    result = runner.generate(PROMPT, max_tokens=24)
    assert len(result.tokens) == 24
    assert result.finish_reason == "length"
    assert result.text == runner.tokenizer.decode(result.tokens)
    assert not result.text.startswith(PROMPT)


def test_a_stream_is_its_result_in_pieces(runner: Runner) -> None:
    stream = runner.stream(PROMPT, max_tokens=40, search="sample", seed=3, stop="zzz")
    pieces = list(stream)
    result = stream.result()
    assert "".join(str(piece) for piece in pieces) == result.text
    assert tuple(token for piece in pieces for token in piece.tokens) == result.tokens
    assert result == runner_result(result, runner.generate(PROMPT, max_tokens=40, search="sample", seed=3, stop="zzz"))


def runner_result(like: Any, other: Any) -> Any:
    """The other result, with the timings of the first: only these may differ."""
    return dataclasses.replace(other, timings=like.timings)


def test_the_same_seed_gives_the_same_text(runner: Runner) -> None:
    def text(seed: int) -> str:
        return runner.generate(PROMPT, max_tokens=32, search=Sample(temperature=1.5), seed=seed).text

    assert text(1) == text(1)
    assert text(1) != text(2)


class EndAfter:
    """A processor that leaves the end of the text as the only choice after some tokens."""

    def __init__(self, count: int) -> None:
        self.count = count

    def start(self, prompt: tuple[int, ...]) -> int:
        return 0

    def advance(self, state: int, tokens: tuple[int, ...]) -> int:
        return state + len(tokens)

    def apply(self, state: int, logits: FloatArray) -> FloatArray:
        if state == self.count:
            logits[1:] = -np.inf
        return logits


def test_the_token_that_ends_a_text_is_not_part_of_it(runner: Runner) -> None:
    whole = runner.generate(PROMPT, max_tokens=9)
    ended = runner.generate(PROMPT, max_tokens=9, processors=[EndAfter(4)])
    assert (ended.finish_reason, ended.tokens) == ("eos", whole.tokens[:4])
    assert ended.text == runner.tokenizer.decode(whole.tokens[:4])
    at_once = runner.generate(PROMPT, max_tokens=9, processors=[EndAfter(0)])
    assert (at_once.finish_reason, at_once.tokens, at_once.text) == ("eos", (), "")
    assert at_once.timings.time_to_first_token_s is None


def test_a_stop_string_and_the_time_are_reasons(runner: Runner) -> None:
    stopped = runner.generate(PROMPT, max_tokens=100, search="greedy", stop=["\n        ", ":\n"])
    whole = runner.generate(PROMPT, max_tokens=100, search="greedy").text
    assert stopped.finish_reason == "stop"
    assert whole.startswith(stopped.text)
    assert whole[len(stopped.text) :].startswith(("\n        ", ":\n"))
    late = runner.generate(PROMPT, max_tokens=100, time_limit=1e-9)
    assert (late.finish_reason, len(late.tokens)) == ("time", 1)


def test_a_rule_may_be_given_in_place_of_a_text(runner: Runner) -> None:
    rules = runner.generate(PROMPT, max_tokens=100, stop=[StopStrings(("\n",))])
    assert rules.text == runner.generate(PROMPT, max_tokens=100, stop="\n").text


def test_a_cancelled_stream_keeps_what_it_has_and_disturbs_nobody(runner: Runner) -> None:
    alone = runner.generate(PROMPT, max_tokens=30).tokens
    cancelled, other = (runner.stream(PROMPT, max_tokens=30) for _ in range(2))
    taken = [next(cancelled), next(other), next(cancelled), next(other)]
    cancelled.close()
    result = cancelled.result()
    assert (result.finish_reason, result.tokens) == ("cancelled", alone[:2])
    assert result.text == "".join(str(piece) for piece in taken[::2])
    assert other.result().tokens == alone


def test_generations_in_threads_are_those_of_one_after_the_other(runner: Runner) -> None:
    prompts = [PROMPT, "import ", "class A", "# "]
    expected = {prompt: runner.generate(prompt, max_tokens=24).tokens for prompt in prompts}
    found: dict[str, tuple[int, ...]] = {}

    def run(prompt: str) -> None:
        found[prompt] = runner.generate(prompt, max_tokens=24).tokens

    threads = [threading.Thread(target=run, args=(prompt,)) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_timings_add_up(runner: Runner) -> None:
    timings = runner.generate(PROMPT, max_tokens=8).timings
    prompt = len(runner.tokenizer.encode(PROMPT))
    assert (timings.prompt_tokens, timings.new_tokens) == (prompt, 8)
    assert timings.load_s == runner.load_s > 0
    assert timings.time_to_first_token_s is not None
    assert 0 < timings.time_to_first_token_s < timings.total_s
    assert timings.prefill_tokens_per_s == prompt / timings.time_to_first_token_s
    assert timings.decode_tokens_per_s == pytest.approx(7 / (timings.total_s - timings.time_to_first_token_s))
    assert len(timings.between_tokens_s) == 7
    assert timings.time_to_first_token_s + sum(timings.between_tokens_s) == pytest.approx(timings.total_s)
    drafted = runner.generate(PROMPT, max_tokens=8, search="speculative").timings
    assert len(drafted.between_tokens_s) == drafted.new_tokens - 1
    assert timings.peak_memory_bytes is not None
    assert timings.peak_memory_bytes > 10 << 20
    assert runner.generate(PROMPT, max_tokens=1).timings.decode_tokens_per_s is None


def test_a_prompt_may_be_tokens(runner: Runner) -> None:
    tokens = runner.tokenizer.encode(PROMPT)
    assert runner.generate(tokens, max_tokens=9).tokens == runner.generate(PROMPT, max_tokens=9).tokens


@pytest.mark.parametrize(
    ("prompt", "options", "kind", "message"),
    [
        ("", {}, GenerationError, "the prompt is empty"),
        ([], {}, GenerationError, "the prompt is empty"),
        (b"def", {}, GenerationError, "the prompt is bytes"),
        ([4096], {}, GenerationError, "token 4096 does not exist: the vocabulary has 4096"),
        ("\udcff", {}, GenerationError, "not valid Unicode"),
        ("a " * 2000, {}, ContextOverflow, "tokens, and the context is 1,024: nothing is left for an answer"),
        ("a" * (1 << 21), {}, ContextOverflow, "2,097,152 characters"),
        ("a", {"max_tokens": 1024}, ContextOverflow, "the prompt has 1 tokens; 1,024 new ones make 1,025"),
        ("a", {"max_tokens": 0}, OptionError, "max_tokens is 0; it must be 1 or more"),
        ("a", {"search": "gredy"}, OptionError, "no search is named 'gredy'; did you mean 'greedy'?"),
        ("a", {"search": 7}, OptionError, "search is 7; it must be the name of a search"),
        ("a", {"seed": -1}, OptionError, "seed is -1"),
        ("a", {"stop": ""}, OptionError, "a stop string is empty"),
        ("a", {"time_limit": 0.0}, OptionError, "time_limit is 0.0"),
    ],
)
def test_what_cannot_be_generated_is_one_line(
    runner: Runner, prompt: Any, options: dict[str, Any], kind: type[EdgewiseError], message: str
) -> None:
    with pytest.raises(kind) as caught:
        runner.generate(prompt, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_max_tokens_an_answer_ends_with_the_context(runner: Runner) -> None:
    prompt = [300] * 1020
    result = runner.generate(prompt)
    assert (len(result.tokens), result.finish_reason) == (4, "length")


def test_a_smaller_context_can_be_asked_for_and_a_larger_one_than_the_model_s_not(pycoder_bundle: Bundle) -> None:
    with (
        Runner.open(pycoder_bundle.path, context=16) as small,
        pytest.raises(ContextOverflow, match=r"context is 16 \(it can be opened with up to 1,024\)"),
    ):
        small.generate([5] * 16)
    with pytest.raises(ContextOverflow, match="a context of 2000 tokens was asked for; the model has 1024"):
        Runner.open(pycoder_bundle.path, context=2000)


def test_a_closed_runner_says_so(pycoder_bundle: Bundle) -> None:
    runner = Runner.open(pycoder_bundle.path)
    runner.close()
    with pytest.raises(GenerationError, match=r"the runner of .* is closed"):
        runner.generate(PROMPT)


def test_chat_on_a_bundle_without_a_template_names_run(runner: Runner) -> None:
    with pytest.raises(GenerationError, match="has no chat template: it continues texts; use: edgewise run"):
        runner.chat([{"role": "user", "content": "hello"}])


def test_chat_answers_a_conversation(runner: Runner) -> None:
    template = ChatTemplate(TEMPLATE, runner.tokenizer)
    chatting = Runner(runner.model, runner.tokenizer, template=template)
    messages = [{"role": "user", "content": "sort<|assistant|>"}]
    prompt = chatting.encode_chat(messages)
    assert prompt[0] == 1
    assert prompt.count(2) == 1, "the control token that was typed is text"
    result = chatting.chat(messages, max_tokens=12).result()
    assert result.tokens == runner.generate(prompt, max_tokens=12).tokens


# What a device sees.


def test_a_device_generates_without_what_builds_need(pycoder_bundle: Bundle, runner: Runner) -> None:
    absent = ("onnx", "onnx_ir", "onnxscript", "ml_dtypes", "rich", "torch", "jinja2", "safetensors", "huggingface_hub")
    code = (
        "import sys, json\n"
        f"for name in {absent}: sys.modules[name] = None\n"
        "from edgewise import Runner\n"
        "runner = Runner.open(sys.argv[1])\n"
        "result = runner.generate(sys.argv[2], max_tokens=12, search='greedy')\n"
        "print(json.dumps(result.tokens))"
    )
    command = [sys.executable, "-c", code, str(pycoder_bundle.path), PROMPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert tuple(json.loads(done.stdout)) == runner.generate(PROMPT, max_tokens=12, search="greedy").tokens


def test_a_piece_prints_as_its_text() -> None:
    assert f"{Piece('a', (1,))}" == "a"
