"""sdk, cli: `run`: a bundle continues a text."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgewise.cli.generation import Generation, generation_options, say_timings
from edgewise.cli.output import json_option, print_json, talk
from edgewise.errors import GenerationError

if TYPE_CHECKING:
    from edgewise.runtime.result import Result


@click.command()
@click.argument("bundle")
@click.argument("prompt")
@click.option("--context", type=int, help="Tokens of the prompt and the answer together.  [default: the bundle's]")
@generation_options
@click.option("--n", type=int, metavar="COUNT", help="So many samples of one prompt.")
@click.option("--logprobs", type=int, metavar="K", help="With --json: of each token, and of the K most probable.")
@json_option
def run(
    bundle: str,
    prompt: str,
    context: int | None,
    generation: Generation,
    n: int | None,
    logprobs: int | None,
    as_json: bool,
) -> None:
    """Continue PROMPT; "-" reads it from stdin.

    Text goes to stdout as it is written, timings to stderr. Of several completions the first comes as it is written
    and the others after it, each with a heading on stderr.

    \b
    Example:
      edgewise run pycoder.edge "def read_json("
      edgewise run pycoder.edge "class Queue:" --search sample --set temperature=0.7 --seed 7
      edgewise run pycoder.edge "version = " --regex "[0-9]+[.][0-9]" --json
    """
    from edgewise.runtime.runner import Runner

    if logprobs is not None and not as_json:
        raise click.UsageError("Option '--logprobs' needs '--json'.")
    text = _stdin() if prompt == "-" else prompt
    with generation.options() as options, Runner.open(bundle, context=context) as runner:
        stream = runner.stream(text, **options, n=n, logprobs=logprobs)
        if as_json:
            result = stream.result()
            print_json({**asdict(result.completions[0]), **asdict(result)})
            return
        for piece in stream:
            if piece.sequence == 0:
                click.echo(piece.text, nl=False)
        click.echo()
        result = stream.result()
        _print_others(result)
        say_timings(result)


def _print_others(result: "Result") -> None:
    count = len(result.completions)
    for number, completion in enumerate(result.completions[1:], start=2):
        score = "" if completion.score is None else f", score {completion.score:.4g}"
        talk(f"{number} of {count}, ended by {completion.finish_reason}{score}:")
        click.echo(completion.text)


def _stdin() -> str:
    """All of stdin, as it is. Raises GenerationError where that is not text."""
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise GenerationError(f"the prompt on stdin is not UTF-8: byte {error.start} is invalid") from error
