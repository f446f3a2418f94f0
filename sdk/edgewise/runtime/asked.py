"""sdk, runtime: a generation as it was asked for, made ready: what its search is told, and what may end it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgewise.runtime.assistants import check_assistants, refuse_other_prompts
from edgewise.runtime.ended import Ended
from edgewise.runtime.generation import Options, check_options, find_processors, find_rules
from edgewise.runtime.pool import check_memory
from edgewise.runtime.prompt import fit
from edgewise.runtime.stream import Clock
from edgewise.runtime.window import Window
from edgewise.search.named import find_search
from edgewise.search.protocol import Context, Processor, Search, Vocabulary
from edgewise.search.samples import several
from edgewise.search.stops import Eos, MaxTokens, StopRule, TimeLimit, needs_logprobs
from edgewise.text.stream import TextStream
from edgewise.text.vocabulary import TokenizerVocabulary

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner


@dataclass(frozen=True)
class Asked:
    """One generation, of which nothing has been computed."""

    search: Search
    context: Context  # what the search is told
    source: tuple[int, ...]  # what an encoder reads
    dropped: int  # tokens that the prompt lost to fit
    rules: tuple[StopRule, ...]  # all that end it, what was asked for among them
    window: Window | None
    text: Callable[[], TextStream]  # a new one for each sequence
    clock: Clock

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt as it was given."""
        return len(self.source or self.context.prompt) + self.dropped

    @property
    def capacity(self) -> int:
        """Tokens of the prompt and the answer, at most."""
        return len(self.context.prompt) + self.context.limit


def ask(runner: "Runner", prompt: str | Sequence[int], options: Options) -> Asked:
    """A prompt within the context, and each option as what it stands for, or its default.

    Raises GenerationError, ContextOverflow and OptionError.
    """
    check_options(options)
    window = Window.of(options.get("overflow"))
    fitted = fit(prompt, runner.tokenizer, runner.model, options.get("max_tokens"), window)
    tokens, limit = fitted.tokens, fitted.limit
    eos, after = runner.eos, tokens if isinstance(prompt, str) and not fitted.source else ()
    vocabulary = TokenizerVocabulary(runner.tokenizer, runner.facts.vocab_size, eos=eos)
    rules, timed = find_rules(options.get("stop"), vocabulary), _time(options.get("time_limit"))
    assistants = options.get("assistants") or ()
    search = several(_search(runner, options, vocabulary), options.get("n"))
    if n := options.get("n"):
        check_memory(runner.model, n - 1, min(len(tokens) + limit, runner.model.context))
    check_assistants(runner, assistants, search)
    if fitted.source:
        refuse_other_prompts(search)

    def text() -> TextStream:
        return TextStream(runner.tokenizer, after=after)

    clock = Clock()
    context = Context(
        tokens,
        limit,
        eos,
        _processors(runner, options, vocabulary),
        np.random.default_rng(options.get("seed")),
        _logprobs(options.get("logprobs"), rules),
        Ended((*rules, *timed), text, clock.seconds),
        options.get("seed") is not None,
        tuple(each.model.context for each in assistants),
        forgets=window is not None,
    )
    ending = (Eos(eos), *rules, MaxTokens(limit), *timed)
    return Asked(search, context, fitted.source, fitted.dropped, ending, window, text, clock)


def _search(runner: "Runner", options: Options, vocabulary: Vocabulary) -> Search:
    given = options.get("search")
    return runner.default_search if given is None else find_search(given, vocabulary)


def _processors(runner: "Runner", options: Options, vocabulary: Vocabulary) -> tuple[Processor, ...]:
    """The checkpoint's own go with its own search only; the caller's come after them."""
    own = runner.default_processors if options.get("search") is None else ()
    return find_processors((*own, *(options.get("processors") or ())), vocabulary)


def _time(seconds: float | None) -> list[StopRule]:
    return [] if seconds is None else [TimeLimit(seconds)]


def _logprobs(asked: int | None, rules: Sequence[StopRule]) -> int | None:
    """What is asked for, or what rules need: those of the chosen tokens."""
    return 0 if asked is None and any(map(needs_logprobs, rules)) else asked
