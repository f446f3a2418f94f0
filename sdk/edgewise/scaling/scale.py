"""sdk, scaling: a scaler with runners: every draw is carried out, and the budget is kept."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Protocol, Unpack, cast

import numpy as np

from edgewise.bench.energy import Meter
from edgewise.errors import OptionError
from edgewise.runtime.encoder import Encoder
from edgewise.runtime.generation import Options
from edgewise.runtime.result import Result
from edgewise.runtime.runner import Runner
from edgewise.scaling.budget import Budget, Ledger, Limit
from edgewise.scaling.labelled import labelled
from edgewise.scaling.protocol import Candidate, Choice, Context, Draw, Flow, Prompt, Scaler
from edgewise.scaling.result import Scaled, Spent
from edgewise.search.greedy import Greedy
from edgewise.search.named import Named
from edgewise.text.stream import TextStream

BUDGET = 16  # samples
SAMPLE = {"name": "sample", "temperature": 0.7}  # where the checkpoint asks for greedy: its samples would all be one


class Progress(Protocol):
    """Told after each draw how much is spent."""

    def __call__(self, samples: int, tokens: int, /) -> None: ...


def scale(
    runner: Runner | Sequence[Runner | Encoder],
    prompt: Prompt,
    scaler: Scaler | Named = "self-consistency",
    *,
    budget: Budget | int | str = BUDGET,
    tests: str = "",
    progress: Progress | None = None,
    **options: Unpack[Options],
) -> Scaled:
    """An answer for which more is computed than once through the model.

    runner: the model, or models 0, 1, ... for scalers of several; a classifier among them is for a verifier.
    budget: so many samples, or as `Budget.parse` reads it; it is exceeded by one token of each sample at most.
    tests: Python that holds for a right program, for the verifier `unit-tests`.
    options: of every generation; several samples are drawn by sampling unless the search is given.
    Of a seed, and a budget of samples and tokens, comes the same result.
    Raises OptionError, and what `Runner.stream` raises.
    """
    seed = options.get("seed")
    runners = (runner,) if isinstance(runner, Runner) else tuple(runner)
    chosen = find_scaler(scaler)
    if not chosen.models <= len(runners) <= (chosen.most or len(runners)):
        asks = f"{chosen.models} or more" if chosen.most is None else str(chosen.models)
        raise OptionError(f"scaler '{chosen.name}' asks {asks} models, and {len(runners)} are given")
    with Meter() as meter:
        ledger = Ledger(_budget(budget), meter.joules)
        if ledger.budget.joules is not None and meter.reason:
            raise OptionError(f"the budget is in joules, and {meter.reason}; give samples, tokens or seconds")
        drawing = _Drawing(runners, prompt, ledger, np.random.default_rng(seed), options)
        context = Context(prompt, len(runners), np.random.default_rng(seed), drawing.spell, lambda: ledger.left, tests)
        choice = _driven(chosen.flow(context), drawing, progress)
        early, seconds = not ledger.spent, ledger.seconds
    spent = Spent(ledger.samples, ledger.tokens, drawing.prompt_tokens, seconds, meter.energy)
    return Scaled(choice.best, choice.candidates, choice.why, early, spent)


def find_scaler(scaler: Scaler | Named) -> Scaler:
    """A scaler as it is, or by its name, with options in a table. Raises OptionError."""
    if isinstance(scaler, Scaler):
        return scaler
    from edgewise.registry import registry
    from edgewise.search.named import named

    found = named(scaler, registry().scalers, "scaler")
    assert isinstance(found, Scaler)
    return found


def _driven(flow: Flow, drawing: "_Drawing", progress: Progress | None) -> Choice:
    """What the scaler settles on."""
    with closing(flow):
        try:
            draw = next(flow)
            while True:
                drawn = drawing.answer(draw)
                if progress:
                    progress(drawing.ledger.samples, drawing.ledger.tokens)
                draw = flow.send(drawn)
        except StopIteration as end:
            choice: Choice = end.value
            return choice


@dataclass
class _Drawing:
    """Carries draws out."""

    runners: tuple[Runner | Encoder, ...]
    prompt: Prompt
    ledger: Ledger
    rng: np.random.Generator
    options: Options
    prompt_tokens: int = 0

    def answer(self, draw: Draw) -> tuple[Candidate, ...]:
        count = self.ledger.affordable(draw.count) if draw.sample else draw.count
        if count < 1 or (self.ledger.full and self.ledger.tokens):
            return ()
        runner = self.runners[draw.model]
        if isinstance(runner, Encoder):
            return (self._labelled(runner, draw),)
        if draw.after and draw.after.tokens[-1] in runner.eos:
            return (replace(draw.after, tokens=draw.after.tokens[:-1], finish_reason="eos"),)
        if draw.after and (most := self.options.get("max_tokens")) and len(draw.after.tokens) >= most:
            return (replace(draw.after, finish_reason="length"),)
        prompt = self._prompt(runner, draw)
        result = runner.generate(prompt, **self._options(runner, draw, count))
        self.prompt_tokens += result.timings.prompt_tokens - result.timings.prompt_tokens_cached
        before = "".join(self.spell(draw.after)) if draw.after else ""
        found = _candidates(runner, result, draw, before)
        self.ledger.samples += sum(each.whole for each in found) if draw.sample else 0
        return found

    def _labelled(self, encoder: Encoder, draw: Draw) -> Candidate:
        """What a classifier says of a text: its labels are as tokens, the most probable one is the answer."""
        if draw.sample or not isinstance(draw.prompt, str):
            raise OptionError(f"model {draw.model} is a classifier, and answers nothing; it is for a verifier: reward")
        return labelled(encoder, draw.prompt, draw.model)

    def _prompt(self, runner: Runner, draw: Draw) -> str | Sequence[int]:
        given = self.prompt if draw.prompt is None else draw.prompt
        after = draw.after.tokens if draw.after else ()
        if isinstance(given, str):
            return (*runner.tokenizer.encode(given), *after) if after else given
        if given and isinstance(given[0], Mapping):
            given = runner.encode_chat(given)  # type: ignore[arg-type]
        return (*given, *after)

    def spell(self, candidate: Candidate) -> tuple[str, ...]:
        """What each token of a candidate adds to its text."""
        runner = self.runners[candidate.model]
        if isinstance(runner, Encoder):
            return tuple(runner.facts.labels[label] for label in candidate.tokens)
        prompt = runner.tokenizer.encode(self.prompt) if isinstance(self.prompt, str) else ()
        return _pieces(TextStream(runner.tokenizer, after=prompt), candidate.tokens)

    def _options(self, runner: Runner, draw: Draw, count: int) -> Options:
        options: dict[str, Any] = {**self.options, **draw.options}
        stops = (self.options.get("stop") or (), draw.options.get("stop") or ())
        options["stop"] = [each for stop in stops for each in ((stop,) if isinstance(stop, str) else stop)]
        options["stop"].append(Limit(self.ledger))
        if draw.after and options.get("max_tokens"):
            options["max_tokens"] -= len(draw.after.tokens)
        if draw.varied and options.get("search") is None and isinstance(runner.default_search, Greedy):
            options["search"] = SAMPLE
        if self.options.get("seed") is not None:
            options["seed"] = int(self.rng.integers(1 << 63))
        if count > 1:
            options["n"] = count
        return cast(Options, options)


def _candidates(runner: Runner, result: Result, draw: Draw, before: str) -> tuple[Candidate, ...]:
    """What was drawn, with what it goes on from, whose text is `before`."""
    after = draw.after or Candidate(text="")
    return tuple(
        Candidate(
            text=before + _space(runner, after.tokens, each.tokens) + each.text,
            tokens=after.tokens + each.tokens,
            finish_reason=each.finish_reason,
            logprobs=after.logprobs + each.logprobs,
            model=draw.model,
        )
        for each in result.completions
    )


def _pieces(stream: TextStream, tokens: Sequence[int]) -> tuple[str, ...]:
    """What each token adds to a text; the last one, what is unfinished too."""
    pieces = [stream.push(token) for token in tokens]
    return (*pieces[:-1], pieces[-1] + stream.flush()) if pieces else ()


def _space(runner: Runner, after: tuple[int, ...], tokens: tuple[int, ...]) -> str:
    """The space before what goes on from tokens, which a decoder drops where a text begins with it."""
    if not after or not tokens:
        return ""
    following, alone = TextStream(runner.tokenizer, after=after), TextStream(runner.tokenizer)
    first = _pieces(following, tokens[:1])[0]
    return " " if first == f" {_pieces(alone, tokens[:1])[0]}" else ""


def _budget(given: Budget | int | str) -> Budget:
    if isinstance(given, Budget):
        return given
    return Budget.parse(given) if isinstance(given, str) else Budget(samples=given)
