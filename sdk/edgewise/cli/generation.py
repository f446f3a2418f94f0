"""sdk, cli: what `run` and `chat` share: the options of a generation."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import size, talk
from edgewise.cli.parts import Part, nested, part, setting
from edgewise.errors import OptionError

if TYPE_CHECKING:
    from edgewise.runtime.result import Result

Command = Callable[..., None]


@dataclass(frozen=True)
class Generation:
    """The options as they were given; None, or nothing, is the default of the runner."""

    max_tokens: int | None
    search: str | None
    settings: tuple[tuple[str, Any], ...]
    processors: tuple[Part, ...]
    json_schema: Path | None
    regex: str | None
    grammar: Path | None
    seed: int | None
    stop: tuple[str, ...]
    stop_rules: tuple[Part, ...]
    time_limit: float | None
    sinks: int | None
    assistants: tuple[str, ...]

    @contextmanager
    def options(self) -> Iterator[dict[str, Any]]:
        """The keyword arguments of `Runner.stream` and `Runner.chat`; the assistants are open until it is left."""
        from edgewise.registry import registry
        from edgewise.runtime.opened import open_model

        options = {
            "max_tokens": self.max_tokens,
            "search": self._search(),
            "processors": [*(part.table(registry().processors) for part in self.processors), *self._grammar()],
            "seed": self.seed,
            "stop": [*self.stop, *(part.table(registry().stop_rules) for part in self.stop_rules)],
            "time_limit": self.time_limit,
            "overflow": None if self.sinks is None else {"name": "window", "sinks": self.sinks},
        }
        with ExitStack() as stack:
            yield options | {"assistants": [stack.enter_context(open_model(path)) for path in self.assistants]}

    def _search(self) -> dict[str, Any] | None:
        if self.search is None:
            if self.settings:
                raise click.UsageError("Option '--set' needs '--search': options belong to a search.")
            return None
        return {"name": self.search, **nested(self.settings)}

    def _grammar(self) -> list[dict[str, Any]]:
        given = {
            "json_schema": self.json_schema and _read(self.json_schema),
            "regex": self.regex,
            "lark": self.grammar and _read(self.grammar),
        }
        options = {key: value for key, value in given.items() if value is not None}
        if len(options) > 1:
            raise click.UsageError("Give one of '--json-schema', '--regex' and '--grammar'.")
        return [{"name": "grammar", **options}] if options else []


def generation_options(command: Command) -> Command:
    """Adds the options; the command gets them as one `generation`."""
    names = [each.name for each in fields(Generation)]

    @wraps(command)
    def collected(**given: Any) -> None:
        generation = Generation(**{name: given.pop(name) for name in names})
        command(generation=generation, **given)

    decorated: Command = collected
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def say_timings(result: "Result") -> None:
    """How the generation went, on one line of talk."""
    timings = result.timings
    parts = [f"{timings.new_tokens} tokens in {timings.total_s:.2f} s, ended by {result.finish_reason}"]
    if timings.time_to_first_token_s is not None:
        parts.append(f"first after {timings.time_to_first_token_s:.3f} s")
    if timings.prefill_tokens_per_s is not None:
        cached = f" ({timings.prompt_tokens_cached} of them cached)" if timings.prompt_tokens_cached else ""
        parts.append(f"prompt of {timings.prompt_tokens}{cached}: {timings.prefill_tokens_per_s:.0f} tokens/s")
    if timings.decode_tokens_per_s is not None:
        parts.append(f"then {timings.decode_tokens_per_s:.0f} tokens/s")
    if dropped := timings.prompt_tokens_dropped + timings.tokens_dropped:
        parts.append(f"{dropped} tokens were dropped")
    if result.drafts:
        drafts = result.drafts
        parts.append(f"{drafts.accepted} of {drafts.drafted} drafted tokens accepted in {drafts.steps} steps")
    if timings.peak_memory_bytes is not None:
        parts.append(f"{size(timings.peak_memory_bytes)} of memory at most")
    talk("; ".join(parts))


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise OptionError(f"{path} is not UTF-8: byte {error.start} is invalid") from error


def _each(flag: str, name: str, read: Callable[[str], Any], metavar: str, text: str) -> Callable[[Command], Command]:
    """An option that may be repeated; each of its texts is read."""

    def callback(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(map(read, given))

    return click.option(flag, name, multiple=True, metavar=metavar, callback=callback, help=text)


_PART = "NAME[=VALUE | :KEY=VALUE,...]"
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = (
    click.option("--max-tokens", type=int, help="New tokens at most.  [default: 256, or what the context has left]"),
    click.option("--search", metavar="NAME", help="How tokens are chosen.  [default: as the checkpoint asks]"),
    _each(
        "--set", "settings", setting, "KEY=VALUE", "An option of the search, such as temperature=0.7; repeat for more."
    ),
    _each("--processor", "processors", part, _PART, "What changes scores, such as repetition_penalty=1.1; repeat."),
    click.option("--json-schema", type=_FILE, help="The text shall be JSON of this schema ({}: any JSON)."),
    click.option("--regex", help="The text shall match this regular expression, as a whole."),
    click.option("--grammar", type=_FILE, help="The text shall be of this Lark grammar."),
    click.option("--seed", type=int, help="The same seed gives the same text."),
    click.option("--stop", multiple=True, metavar="TEXT", help="A text that ends it; repeat for more."),
    _each("--stop-rule", "stop_rules", part, _PART, "What else ends it, such as loop:count=3; repeat for more."),
    click.option("--time-limit", type=float, metavar="SECONDS", help="End it after so many seconds."),
    click.option(
        "--sinks",
        type=int,
        metavar="N",
        help="When the context is full, keep the first N tokens and the latest ones, and go on.  [default: an error]",
    ),
    click.option(
        "--assistant",
        "assistants",
        multiple=True,
        metavar="BUNDLE",
        help="A further model that the search or the scaler asks: a draft, an amateur, a verifier.",
    ),
)
