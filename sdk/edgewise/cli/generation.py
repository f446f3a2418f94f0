"""sdk, cli: what `run` and `chat` share: the options of a generation."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import size, talk

if TYPE_CHECKING:
    from edgewise.runtime.result import Result
    from edgewise.search.protocol import Search

Command = Callable[..., None]


@dataclass(frozen=True)
class Generation:
    """The options as they were given; None, or nothing, is the default of the runner."""

    max_tokens: int | None
    search: str | None
    settings: tuple[tuple[str, Any], ...]
    seed: int | None
    stop: tuple[str, ...]
    time_limit: float | None

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `Runner.stream` and `Runner.chat`."""
        return {
            "max_tokens": self.max_tokens,
            "search": self._search(),
            "seed": self.seed,
            "stop": self.stop,
            "time_limit": self.time_limit,
        }

    def _search(self) -> "Search | None":
        from edgewise.options import parse
        from edgewise.registry import registry

        if self.search is None:
            if self.settings:
                raise click.UsageError("Option '--set' needs '--search': options belong to a search.")
            return None
        kind = registry().searches.get(self.search)
        return parse(kind, dict(self.settings), what=f"search '{self.search}'")


def generation_options(command: Command) -> Command:
    """Adds the options; the command gets them as one `generation`."""

    @wraps(command)
    def collected(
        *,
        max_tokens: int | None,
        search: str | None,
        settings: tuple[tuple[str, Any], ...],
        seed: int | None,
        stop: tuple[str, ...],
        time_limit: float | None,
        **others: Any,
    ) -> None:
        command(generation=Generation(max_tokens, search, settings, seed, stop, time_limit), **others)

    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


def say_timings(result: "Result") -> None:
    """How the generation went, on one line of talk."""
    timings = result.timings
    parts = [f"{timings.new_tokens} tokens in {timings.total_s:.2f} s, ended by {result.finish_reason}"]
    if timings.time_to_first_token_s is not None:
        parts.append(f"first after {timings.time_to_first_token_s:.3f} s")
    if timings.prefill_tokens_per_s is not None:
        parts.append(f"prompt of {timings.prompt_tokens}: {timings.prefill_tokens_per_s:.0f} tokens/s")
    if timings.decode_tokens_per_s is not None:
        parts.append(f"then {timings.decode_tokens_per_s:.0f} tokens/s")
    if timings.peak_memory_bytes is not None:
        parts.append(f"{size(timings.peak_memory_bytes)} of memory at most")
    talk("; ".join(parts))


def _settings(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[tuple[str, Any], ...]:
    """`key=value` texts as keys and values: numbers, true and false, and lists as in TOML; all else is text."""
    settings = []
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise click.BadParameter(f"'{text}' is not of the form key=value, such as temperature=0.7")
        try:
            settings.append((key, tomllib.loads(f"value = {value}")["value"]))
        except tomllib.TOMLDecodeError:
            settings.append((key, value))
    return tuple(settings)


_OPTIONS = (
    click.option("--max-tokens", type=int, help="New tokens at most.  [default: 256, or what the context has left]"),
    click.option("--search", metavar="NAME", help="How tokens are chosen.  [default: as the checkpoint asks]"),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_settings,
        help="An option of the search, such as temperature=0.7; repeat for more.",
    ),
    click.option("--seed", type=int, help="The same seed gives the same text."),
    click.option("--stop", multiple=True, metavar="TEXT", help="A text that ends it; repeat for more."),
    click.option("--time-limit", type=float, metavar="SECONDS", help="End it after so many seconds."),
)
