"""tests: values of a generation's options: what they must be is said in one line, before anything is computed."""

from collections.abc import Iterator
from typing import Any

import click
import pytest

from edgewise.bundle.read import Bundle
from edgewise.cli.parts import nested, part
from edgewise.errors import GenerationError, OptionError
from edgewise.runtime import pool
from edgewise.runtime.runner import Runner
from edgewise.search.sample import Sample


@pytest.fixture(scope="module")
def runner(pycoder_bundle: Bundle) -> Iterator[Runner]:
    with Runner.open(pycoder_bundle.path, threads=1) as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logprobs": -1}, "logprobs is -1; it must be 0 or above"),
        ({"logprobs": True}, "logprobs is True; it must be 0 or above, and a whole number"),
        ({"n": True}, "n is True; it must be 1 or more, and a whole number"),
        ({"n": 2.0}, "n is 2.0; it must be 1 or more, and a whole number"),
        ({"max_tokens": "5"}, "max_tokens is '5'; it must be 1 or more"),
        ({"seed": 1.5}, "seed is 1.5; it must be 0 or above"),
        ({"time_limit": "5"}, "time_limit is '5'; it must be more than 0 seconds"),
        ({"time_limit": float("nan")}, "time_limit is nan"),
        ({"stop": [5]}, "stop is [5]; it must be a text, or a list of texts"),
        ({"stop": iter(["a"])}, "it must be a text, or a list of texts"),
        ({"processors": [5]}, "processors is [5]; it must be a list of processors"),
        ({"processors": "dry"}, "processors is 'dry'; it must be a list of processors"),
        ({"processors": {"name": "dry"}}, "it must be a list of processors"),
        ({"processors": iter(["dry"])}, "it must be a list of processors"),
        ({"overflow": 5}, "overflow is 5; it must be 'window'"),
        ({"assistants": [5]}, "assistants is [5]; it must be a list of runners"),
        ({"search": {"foo": 1}}, "--set search=NAME"),
        ({"search": {"name": "beam", "early_stopping": "maybe"}}, "; or give never"),
        ({"search": "mbr", "n": 2}, "mbr has samples"),
        ({"stop": [{"name": "eos", "tokens": [4096]}]}, "token 4096 does not exist"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_one_line(runner: Runner, options: Any, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        runner.stream("a", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_runner_is_not_a_list_of_assistants(runner: Runner) -> None:
    with pytest.raises(OptionError, match="it must be a list of runners"):
        runner.stream("a", assistants=runner)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["context", "threads", "prefix_cache"])
def test_a_runner_is_opened_with_whole_numbers(pycoder_bundle: Bundle, option: str) -> None:
    with pytest.raises(OptionError, match=f"{option} is '1'; it must be a whole number"):
        Runner.open(pycoder_bundle.path, **{option: "1"})  # type: ignore[arg-type]


def test_tokens_are_whole_numbers(runner: Runner) -> None:
    with pytest.raises(GenerationError, match=r"token 1\.5 is not a whole number"):
        runner.stream([1.5])  # type: ignore[list-item]
    with pytest.raises(GenerationError, match="they must be whole numbers"):
        runner.session(capacity=8).prefill([1.7])  # type: ignore[list-item]


@pytest.mark.parametrize("options", [{"temperature_exponent": 2.0}, {"xtc_threshold": 0.2}])
def test_an_option_that_does_nothing_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="does nothing without"):
        Sample(**options)  # type: ignore[arg-type]


def test_a_setting_is_given_once() -> None:
    with pytest.raises(click.BadParameter, match="'temperature' is given twice"):
        nested([("temperature", 0.5), ("temperature", 0.7)])
    with pytest.raises(click.BadParameter, match="'count' is given twice"):
        part("loop:count=3,count=4")


def test_rows_that_memory_does_not_hold_are_refused_before_anything_is_computed(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "available_memory", lambda: 1 << 20)
    with pytest.raises(GenerationError, match=r"99 more rows of \d+ tokens take \d+ MiB, and 1 MiB of memory"):
        runner.stream("def f(", search="sample", n=100, max_tokens=100)


def test_a_search_that_takes_more_rows_than_memory_holds_is_refused(
    runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "available_memory", lambda: 1 << 20)
    with pytest.raises(GenerationError, match=r"\d+ more rows of \d+ tokens take \d+ MiB, and 1 MiB of memory"):
        runner.generate("def f(", search={"name": "beam", "num_beams": 100}, max_tokens=100)
