"""sdk, runtime: what a generation gives: pieces as they come, and at the end the result with its timings."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from edgewise.search.protocol import Drafts, LogProb


@dataclass(frozen=True, slots=True)
class Piece:
    """What one step added: tokens, and the text that became certain (it lags behind, and is often empty).

    It prints as its text.
    """

    text: str
    tokens: tuple[int, ...]
    sequence: int = 0  # of which, where there are several

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Timings:
    """Where the time of a generation went. Seconds on a monotonic clock; rates are tokens per second.

    A rate is None where there is nothing to measure it by: the decode rate of a single token.
    """

    load_s: float  # opening the bundle, once per runner
    prompt_tokens: int
    prompt_tokens_cached: int  # of these, the ones that an earlier prompt began with: they were not computed again
    prompt_tokens_dropped: int  # of these, the ones that a window left out: the prompt is longer than the context
    new_tokens: int
    tokens_dropped: int  # of the prompt and the answer, by a window, once the context was full
    time_to_first_token_s: float | None  # the prefill, and the choice of the first token
    between_tokens_s: tuple[float, ...] = field(repr=False)  # of the first sequence; what comes together is 0 apart
    total_s: float
    prefill_tokens_per_s: float | None  # prompt tokens that were computed, by the time to the first new one
    decode_tokens_per_s: float | None  # new tokens but the first, by the time after the first
    peak_memory_bytes: int | None  # of the process, so far; None where the system does not tell


@dataclass(frozen=True)
class Completion:
    """One of the sequences that a generation gave; the prompt is in neither its text nor its tokens.

    `finish_reason` is the name of the rule that ended it ("eos", "stop", "length", "time", "floor", "loop", or a
    plugin's), or "cancelled". The token that ends a sequence is not part of it; of a stop string the tokens are, the
    text is not.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: str
    score: float | None = None  # what a search ranks its sequences by
    logprobs: tuple[LogProb, ...] = ()  # of each token, where they were asked for, by a stop rule too
    thought: str = ""  # of a model that thinks aloud: what is between its tags
    answer: str = ""  # the text, without the thought and the space around it


@dataclass(frozen=True)
class Result:
    """What a generation gave: its best (or only) completion is also reached as `result.text` and so on."""

    completions: tuple[Completion, ...]  # best first; in order of their numbers where the search does not rank them
    timings: Timings
    drafts: Drafts | None = None  # what speculation did, where a search drafted

    @property
    def text(self) -> str:
        return self.completions[0].text

    @property
    def tokens(self) -> tuple[int, ...]:
        return self.completions[0].tokens

    @property
    def thought(self) -> str:
        return self.completions[0].thought

    @property
    def answer(self) -> str:
        return self.completions[0].answer

    @property
    def finish_reason(self) -> str:
        return self.completions[0].finish_reason

    @property
    def logprobs(self) -> tuple[LogProb, ...]:
        return self.completions[0].logprobs


def peak_memory() -> int | None:
    """The most memory that this process has held so far, in bytes; None where the system does not tell."""
    try:
        # not getrusage first: its figure begins with what the parent process held
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
