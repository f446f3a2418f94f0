"""tests: what holds for each scaler that is installed: its budget, its seed, its answer, and verifiers that fail."""

from typing import Any

import pytest

from edgewise.errors import OptionError
from edgewise.registry import registry
from edgewise.runtime.runner import Runner
from edgewise.scaling.protocol import Candidate, Context, Scaler
from edgewise.scaling.result import Scaled
from edgewise.scaling.scale import find_scaler, scale
from edgewise.scaling.verifier import Judging, Verdict, Verifier, find_verifier, judged
from edgewise.scaling.votes import BATCH

PROMPT = "x = "
SETTINGS: dict[str, dict[str, Any]] = {
    "cascade": {"thresholds": [1.1]},
    "deepconf": {"warmup": 2, "window": 2},
    "refine": {"verifier": {"name": "judge", "model": 0, "rubric": "{text}", "least": 1.1}},
    "tree": {"expansion": {"children": 3, "separator": " "}, "width": 2},
}
VERIFIED = {
    "adaptive-consistency": "weights",
    "best-of-n": "verifier",
    "cascade": "verifier",
    "refine": "verifier",
    "tree": "value",
}
SCALERS = registry().scalers.names()


class Failing(Verifier):
    """Raises, in its own code."""

    name = "failing"

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        raise ZeroDivisionError("a mistake of its author")
        yield


class Short(Verifier):
    """Forgets one candidate."""

    name = "short"

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        return tuple(Verdict(1.0) for _ in candidates[1:])
        yield


def made(name: str, **options: Any) -> Scaler:
    return find_scaler({"name": name, **SETTINGS.get(name, {}), **options})


def run(runner: Runner, scaler: Scaler, budget: str) -> Scaled:
    return scale([runner] * scaler.models, PROMPT, scaler, budget=budget, seed=5, max_tokens=6)


@pytest.mark.parametrize("budget", ["1", "3", "1tokens", "9tokens", "40tokens", "2,12tokens"])
@pytest.mark.parametrize("name", SCALERS)
def test_no_budget_is_exceeded_by_more_than_a_step(name: str, budget: str, float_runner: Runner) -> None:
    found = run(float_runner, made(name), budget)
    bounds = dict.fromkeys(("samples", "tokens"), 10**9)
    for part in budget.split(","):
        bounds["tokens" if part.endswith("tokens") else "samples"] = int(part.removesuffix("tokens"))
    assert found.spent.samples <= bounds["samples"]
    assert found.spent.tokens < bounds["tokens"] + BATCH  # a step is a token of each row
    assert found.best.tokens == () or any(each.tokens == found.best.tokens for each in found.candidates)
    assert found.why


@pytest.mark.parametrize("name", SCALERS)
def test_of_a_seed_comes_the_same_result(name: str, float_runner: Runner) -> None:
    one, two = (run(float_runner, made(name), "5,60tokens") for _ in range(2))
    assert [(each.tokens, each.score) for each in one.candidates] == [
        (each.tokens, each.score) for each in two.candidates
    ]
    assert (one.best, one.why, one.early) == (two.best, two.why, two.early)
    assert (one.spent.samples, one.spent.tokens) == (two.spent.samples, two.spent.tokens)


@pytest.mark.parametrize("verifier", [Failing(), Short()])
@pytest.mark.parametrize(("name", "part"), VERIFIED.items())
def test_a_verifier_that_fails_is_named(name: str, part: str, verifier: Verifier, float_runner: Runner) -> None:
    scaler = made(name, **{part: verifier})
    with pytest.raises(OptionError, match=f"verifier '{verifier.name}' failed: ") as caught:
        run(float_runner, scaler, "2")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", registry().verifiers.names())
def test_a_verifier_of_no_candidates_gives_no_verdict(name: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "json-schema": {"schema": "{}"},
        "tool": {"command": "true"},
        "unit-tests": {"tests": "assert True"},
    }
    flow = judged(find_verifier({"name": name, **settings.get(name, {})}), Context(PROMPT, models=2), ())
    with pytest.raises(StopIteration) as end:
        next(flow)
    assert end.value.value == ()


def test_each_scaler_that_takes_a_verifier_is_among_those_that_are_tried() -> None:
    parts = {
        name: [field for field in ("verifier", "value", "weights") if field in fields_of(name)] for name in SCALERS
    }
    assert {name: part[0] for name, part in parts.items() if part} == VERIFIED


def fields_of(name: str) -> frozenset[str]:
    return frozenset(getattr(registry().scalers.get(name), "__dataclass_fields__", {}))
