"""Samples that were drawn once, put to every scaler: one never sees a model, so that it cannot tell."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise import Runner, Scaler
from edgewise.scaling.confidence import Unsure, confidence
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw
from edgewise.search.protocol import LogProb
from edgewise.search.stops import Progress

TOP = 8  # tokens of a confidence


def record(runner: Runner, prompt: str, samples: int, options: Any) -> list[dict[str, Any]]:
    """Samples as plain data: text, why it ended, log-probabilities and confidences of its tokens."""
    result = runner.generate(prompt, n=samples, logprobs=TOP, seed=0, **options)
    return [
        {
            "text": each.text,
            "reason": each.finish_reason,
            "logprobs": [round(token.logprob, 5) for token in each.logprobs],
            "sure": [round(confidence(token.top), 5) for token in each.logprobs],
        }
        for each in result.completions
    ]


@dataclass
class Recorded:
    """The samples of one problem, of each model."""

    models: list[list[dict[str, Any]]]
    tokens: int = 0  # that were taken
    taken: int = 0

    def answer(self, draw: Draw, budget: int) -> tuple[Candidate, ...]:
        """The next ones of a model, as a runner would have drawn them."""
        rules = [rule for rule in draw.options.get("stop", ()) if isinstance(rule, Unsure)]
        samples = self.models[draw.model]
        found = tuple(_candidate(each, rules, draw.model) for each in samples[: min(draw.count, budget - self.taken)])
        del samples[: len(found)]
        self.taken += len(found)
        self.tokens += sum(len(each.tokens) for each in found)
        return found


def replayed(scaler: Scaler, prompt: str, models: list[list[dict[str, Any]]], budget: int) -> tuple[Choice, int]:
    """What a scaler chooses among recorded samples of each model, and the tokens that it took."""
    recorded = Recorded([list(samples) for samples in models])
    flow = scaler.flow(Context(prompt, len(models)))
    try:
        draw = next(flow)
        while True:
            draw = flow.send(recorded.answer(draw, budget))
    except StopIteration as end:
        return end.value, recorded.tokens


def read(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Problems with their samples, of a file of JSON lines."""
    with path.open("rb") as file:
        for line in file:
            problem = json.loads(line)
            yield problem["problem"], problem["samples"]


def _candidate(sample: dict[str, Any], rules: list[Unsure], model: int) -> Candidate:
    pairs = zip(sample["logprobs"], sample["sure"], strict=True)
    logprobs = tuple(LogProb(0, p, ((0, -sure),)) for p, sure in pairs)
    for end in range(1, len(logprobs) + 1):
        progress = Progress([0] * end, "", "", 0.0, logprobs[:end])
        if any(rule.check(progress).stop for rule in rules):
            return Candidate(
                text="", tokens=(0,) * end, finish_reason=Unsure.name, logprobs=logprobs[:end], model=model
            )
    return Candidate(
        text=sample["text"],
        tokens=(0,) * len(logprobs),
        finish_reason=sample["reason"],
        logprobs=logprobs,
        model=model,
    )
