"""tests: every search with every option that another one takes: it works and keeps what is promised, or it refuses.

What is installed is what is tested: a search, a processor or a stop rule is in here by being registered. The pairs
that are refused are those of the table in docs/generation.md, and no other.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgewise.errors import EdgewiseError
from edgewise.pipeline import build
from edgewise.registry import registry
from edgewise.runtime.result import Result
from edgewise.runtime.runner import Runner

PROMPT = "def f(a, b):\n    return a, a, a,"
LIMIT = 8
SEED = 3
SEARCHES = registry().searches.names()
REASONS = {*registry().stop_rules.names(), "eos"}
PAGE = Path(__file__).parents[1] / "docs/generation.md"
ASSISTED = {"amateur"}  # searches that are nothing without a second model
PATTERN = r"[a-z]{2,5}!"  # complete within the limit

# Options that have to be given, or that would do nothing here if they were left out.
NEEDED: Mapping[str, Mapping[str, Any]] = {
    "allowed_tokens": {"texts": ["def", "return", "(", ")", "\n", " a", " b"]},
    "bad_words": {"texts": ["return", " a"]},
    "ensemble": {"prompts": ["def g(x):\n    return x,"]},
    "eos": {"tokens": [200, 300]},
    "floor": {"probability": 0.05},
    "frequency_penalty": {"penalty": 0.5},
    "grammar": {"regex": PATTERN},
    "length": {"count": 5},
    "length_decay": {"begin": 2, "factor": 1.5},
    "logit_bias": {"texts": {" b": 5.0}},
    "loop": {"count": 2, "length": 4},
    "min_length": {"new_tokens": 4},
    "no_repeat_ngram": {"size": 2},
    "presence_penalty": {"penalty": 0.5},
    "repetition_penalty": {"penalty": 1.3},
    "sample": {"temperature": 1.5, "top_k": 20},
    "stop": {"strings": [","]},
    "suppress_tokens": {"tokens": [5, 6, 7]},
    "thinking_budget": {"tokens": 3},
    "time": {"seconds": 1e6},
}


def table(name: str) -> dict[str, Any]:
    return {"name": name, **NEEDED.get(name, {})}


def options() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every option of a generation by the name that the table in the docs has for it."""
    yield "none", {}
    yield "n", {"n": 2}
    yield "logprobs", {"logprobs": 2}
    yield "time_limit", {"time_limit": 1e6}
    yield "assistants", {"assistants": ()}  # which are opened once
    yield "overflow", {"overflow": {"name": "window", "sinks": 2, "drop": 4}}
    for name in registry().processors.names():
        yield name, {"processors": [table(name)]}
    for name in registry().stop_rules.names():
        yield f"stop: {name}", {"stop": [table(name)]}
    for name in SEARCHES:
        if _has_inner(registry().searches.get(name)):
            yield f"in {name}", {"inside": name}
    everything = [table(name) for name in ("repetition_penalty", "min_length", "logit_bias")]
    yield "everything", {"processors": everything, "stop": [table("stop"), table("loop")], "logprobs": 0}


def _has_inner(search: type[Any]) -> bool:
    return "search" in {field.name for field in dataclasses.fields(search)}


@dataclasses.dataclass(frozen=True)
class Runners:
    """The demo with all that a search may ask for, and again in a context that the limit overflows."""

    demo: Runner
    narrow: Runner


@pytest.fixture(scope="module")
def runners(pycoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runners]:
    path = tmp_path_factory.mktemp("all") / "pycoder.edge"
    build(pycoder, output=path, hidden_states=True, load_check=False)
    with Runner.open(path, threads=1) as demo, Runner.open(path, threads=1, context=20) as narrow:
        yield Runners(demo, narrow)


def generate(runners: Runners, search: str, given: Mapping[str, Any], *, limit: int = LIMIT) -> Result:
    asked = dict(given)
    named: dict[str, Any] = table(search)
    if inside := asked.pop("inside", None):
        named = {**table(inside), "search": named}
    if "width" in asked:
        named["width"] = asked.pop("width")
    if "assistants" in asked or ASSISTED & {search, inside}:
        asked["assistants"] = [runners.demo]
    runner = runners.narrow if "overflow" in asked else runners.demo
    return runner.generate(PROMPT, search=named, seed=SEED, max_tokens=limit, **asked)


def attempt(runners: Runners, search: str, given: Mapping[str, Any]) -> Result | None:
    """The result; None where it is refused, in one sentence."""
    try:
        return generate(runners, search, given)
    except EdgewiseError as error:
        text = str(error)
        assert "\n" not in text
        assert len(text.split()) > 3, text
        return None


def check(runner: Runner, result: Result, given: Mapping[str, Any]) -> None:
    """What is promised of any result."""
    assert result.timings.new_tokens == sum(len(each.tokens) for each in result.completions)
    assert len(result.completions) == given.get("n", 1)
    for each in result.completions:
        assert len(each.tokens) <= LIMIT
        assert all(0 <= token < runner.facts.vocab_size for token in each.tokens)
        assert each.finish_reason in REASONS
        assert each.finish_reason != "length" or len(each.tokens) in (LIMIT, NEEDED["length"]["count"])
        before = runner.tokenizer.encode(PROMPT)
        spelled = runner.tokenizer.decode([*before, *each.tokens])[len(runner.tokenizer.decode(before)) :]
        assert each.text == (spelled if each.finish_reason != "stop" else spelled.partition(",")[0])
        if "logprobs" in given:
            assert [one.token for one in each.logprobs] == list(each.tokens)
            assert all(one.logprob <= 1e-6 and len(one.top) == given["logprobs"] for one in each.logprobs)
        if any(processor["name"] == "grammar" for processor in given.get("processors", ())):
            assert re.fullmatch(PATTERN, each.text)
            assert each.finish_reason == "eos"


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_keeps_its_promises_with_every_option_or_refuses_it(runners: Runners, search: str) -> None:
    refused = set()
    for name, given in options():
        result = attempt(runners, search, given)
        if result is None:
            refused.add(name)
            continue
        check(runners.demo, result, given)
        again = generate(runners, search, given)
        assert again.completions == result.completions, f"{search} with {name}: a seed gives one output"
    assert refused == expected(search)


@pytest.mark.parametrize("search", ["greedy", "mirostat", "sample"])
def test_what_is_drafted_changes_nothing(runners: Runners, search: str) -> None:
    """Narrow drafts and wide ones: with every option the same tokens, texts and reasons."""
    for name, given in options():
        if name in ("assistants", "overflow") or "inside" in given:
            continue
        narrow, middle, wide = (
            spoken(generate(runners, search, {**given, "inside": "speculative", "width": width}, limit=24))
            for width in (1, 4, 7)
        )
        assert narrow == middle == wide, f"{search} with {name}"


def spoken(result: Result) -> list[tuple[Any, ...]]:
    """Without scores and log-probabilities."""
    return [(each.tokens, each.text, each.finish_reason) for each in result.completions]


def expected(search: str) -> set[str]:
    """What the table in the docs says that a search does not go with."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    return {name for row, names in rows if row == search for name in re.findall(r"`([^`]+)`", names)}
