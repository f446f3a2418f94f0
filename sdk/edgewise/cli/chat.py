"""sdk, cli: `chat`: a conversation with a bundle."""

import sys
from typing import TYPE_CHECKING

import click

from edgewise.cli.generation import Generation, generation_options
from edgewise.cli.output import talk
from edgewise.errors import GenerationError
from edgewise.options import unknown

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner

COMMANDS = {"/clear": "forget the conversation", "/exit": "leave; so does Ctrl-D", "/help": "show this"}


@click.command()
@click.argument("bundle")
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@click.option("--context", type=int, help="Tokens of the whole conversation.  [default: the bundle's]")
@generation_options
def chat(bundle: str, system: str | None, context: int | None, generation: Generation) -> None:
    """Talk to a model, with the chat template of its checkpoint.

    /clear forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer.

    \b
    Example:
      edgewise chat model.edge --system "Answer in one sentence."
    """
    from edgewise.runtime.runner import Runner

    options = generation.options()
    opening = [{"role": "system", "content": system}] if system else []
    with Runner.open(bundle, context=context) as runner:
        runner.encode_chat([*opening, {"role": "user", "content": "hello"}])  # say now what cannot be done
        messages = list(opening)
        while (line := _read()) is not None:
            if line == "/exit":
                return
            if line == "/clear":
                messages = list(opening)
            elif line.startswith("/"):
                _explain(line)
            elif line:
                messages = _turn(runner, messages, line, options)


def _turn(
    runner: "Runner", messages: list[dict[str, str]], line: str, options: dict[str, object]
) -> list[dict[str, str]]:
    """The conversation with one more question and its answer; without them where there is none."""
    asked = [*messages, {"role": "user", "content": line}]
    try:
        stream = runner.chat(asked, **options)  # type: ignore[arg-type]
        try:
            for piece in stream:
                click.echo(piece.text, nl=False)
        except KeyboardInterrupt:
            stream.close()
        click.echo()
        return [*asked, {"role": "assistant", "content": stream.result().text}]
    except GenerationError as error:
        talk(f"error: {error}; /clear forgets the conversation")
        return messages


def _read() -> str | None:
    """A line that the user typed; None at the end of them."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            talk("\n(/exit or Ctrl-D leaves)")
        except UnicodeDecodeError as error:
            raise GenerationError(f"what was typed is not UTF-8: {error.reason}") from error


def _explain(line: str) -> None:
    if line != "/help":
        talk(unknown("command", line, COMMANDS))
    for name, what in COMMANDS.items():
        talk(f"{name:<8}{what}")
