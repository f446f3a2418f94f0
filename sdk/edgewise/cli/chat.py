"""sdk, cli: `chat`: a conversation with a bundle."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.generation import Generation, generation_options
from edgewise.cli.output import talk
from edgewise.errors import ContextOverflow, EdgewiseError, GenerationError
from edgewise.options import unknown

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner

COMMANDS = {"/clear": "forget the conversation", "/exit": "leave; so does Ctrl-D", "/help": "show this"}


@click.command()
@click.argument("bundle")
@click.option("--system", metavar="TEXT", help="What the model is told before the conversation.")
@click.option("--context", type=int, help="Tokens of the whole conversation.  [default: the bundle's]")
@click.option("--untrusted", is_flag=True, help="Run the chat template, a program, in a process with bounds.")
@generation_options
def chat(bundle: str, system: str | None, context: int | None, untrusted: bool, generation: Generation) -> None:
    """Talk to a model, with the chat template of its checkpoint.

    Answers go to stdout; what a model thinks before them goes to stderr.

    /clear forgets the conversation, /exit or Ctrl-D leaves, Ctrl-C stops an answer.

    \b
    Example:
      edgewise chat model.edge --system "Answer in one sentence."
    """
    from edgewise.runtime.runner import Runner

    with suppress(ImportError):
        import_module("readline")  # makes `input` a line that can be edited
    with generation.options() as options, Runner.open(bundle, context=context, trusted=not untrusted) as runner:
        conversation = Conversation(runner, options, system)
        while True:
            try:
                if not conversation.go_on():
                    return
            except KeyboardInterrupt:
                talk("\n(/exit or Ctrl-D leaves)")


class Conversation:
    """What was said so far, and with whom."""

    def __init__(self, runner: "Runner", options: dict[str, Any], system: str | None) -> None:
        self._runner = runner
        self._options = options
        self._opening = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._opening)
        runner.chat([*self._opening, {"role": "user", "content": "hello"}], **options).close()  # what cannot be done?

    def go_on(self) -> bool:
        """Read a line and do what it asks; False where it ends the conversation."""
        with self._preparing():
            line = _read()
        if line in (None, "/exit"):
            return False
        if line == "/clear":
            self._messages = list(self._opening)
        elif line and line.startswith("/"):
            _explain(line)
        elif line:
            self._ask(line)
        return True

    @contextmanager
    def _preparing(self) -> Iterator[None]:
        """Meanwhile, compute what the next prompt begins with; what is wrong with it will be said then."""
        stop = Event()

        def prepare() -> None:
            with suppress(EdgewiseError):
                self._runner.prepare(self._runner.encode_chat(self._messages), stop=stop)

        thread = Thread(target=prepare)
        if self._messages:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            if self._messages:
                thread.join()

    def _ask(self, question: str) -> None:
        """Stream the answer. Ctrl-C stops it; what was said until then stays in the conversation."""
        asked = [*self._messages, {"role": "user", "content": question}]
        try:
            stream = self._runner.chat(asked, **self._options)
            try:
                for span in stream.spans():
                    text = click.style(span.text, dim=True) if span.thought else span.text
                    click.echo(text, nl=False, err=span.thought)
            except KeyboardInterrupt:
                stream.close()
            click.echo()
            self._messages = [*asked, {"role": "assistant", "content": stream.result().text}]
        except GenerationError as error:
            full = isinstance(error, ContextOverflow) and self._messages != self._opening
            talk(f"error: {error}" + ("; /clear forgets the conversation" if full else ""))


def _read() -> str | None:
    """A line that the user typed; None at the end of them."""
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise GenerationError(f"what was typed is not UTF-8: {error.reason}") from error


def _explain(line: str) -> None:
    if line != "/help":
        talk(unknown("command", line, COMMANDS))
    for name, what in COMMANDS.items():
        talk(f"{name:<8}{what}")
