"""sdk, cli: `run`: a bundle continues a text."""

import sys
from dataclasses import asdict

import click

from edgewise.cli.generation import Generation, generation_options, say_timings
from edgewise.cli.output import json_option, print_json
from edgewise.errors import GenerationError


@click.command()
@click.argument("bundle")
@click.argument("prompt")
@click.option("--context", type=int, help="Tokens of the prompt and the answer together.  [default: the bundle's]")
@generation_options
@json_option
def run(bundle: str, prompt: str, context: int | None, generation: Generation, as_json: bool) -> None:
    """Continue PROMPT; "-" reads it from stdin.

    Text goes to stdout as it is written, timings to stderr.

    \b
    Example:
      edgewise run pycoder.edge "def read_json("
      edgewise run pycoder.edge "class Queue:" --search sample --set temperature=0.7 --seed 7
    """
    from edgewise.runtime.runner import Runner

    options = generation.options()
    text = _stdin() if prompt == "-" else prompt
    with Runner.open(bundle, context=context) as runner:
        stream = runner.stream(text, **options)
        if as_json:
            result = stream.result()
            print_json({**asdict(result.completions[0]), **asdict(result)})
            return
        for piece in stream:
            if piece.sequence == 0:
                click.echo(piece.text, nl=False)
        click.echo()
        say_timings(stream.result())


def _stdin() -> str:
    """All of stdin, as it is. Raises GenerationError where that is not text."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise GenerationError(f"the prompt on stdin is not UTF-8: byte {error.start} is invalid") from error
