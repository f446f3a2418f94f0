"""sdk, cli: `run`: a bundle continues a text."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgewise.cli.generation import Generation, generation_options, say_timings
from edgewise.cli.output import json_option, print_json, talk
from edgewise.cli.parts import Part, read_part
from edgewise.cli.scaled import run_scaled
from edgewise.errors import CacheError, GenerationError

if TYPE_CHECKING:
    from edgewise.runtime.result import Result
    from edgewise.runtime.runner import Runner
    from edgewise.runtime.stream import Stream


@click.command()
@click.argument("bundle")
@click.argument("prompt")
@click.option("--context", type=int, help="Tokens of the prompt and the answer together.  [default: the bundle's]")
@generation_options
@click.option("--n", type=int, metavar="COUNT", help="So many samples of one prompt.")
@click.option("--logprobs", type=int, metavar="K", help="With --json: of each token, and of the K most probable.")
@click.option(
    "--prompt-cache",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Read what is known of the prompt from a file, if it is there; keep there what is not known yet.",
)
@click.option(
    "--scale",
    metavar="NAME[=VALUE | :KEY=VALUE,...]",
    callback=read_part,
    help="Spend more on the answer, such as self-consistency or best-of-n; assistants are further models.",
)
@click.option("--budget", help="With --scale: samples, or 2000tokens, 30s, 50J, or several with commas.  [default: 16]")
@json_option
def run(
    bundle: str,
    prompt: str,
    context: int | None,
    generation: Generation,
    n: int | None,
    logprobs: int | None,
    prompt_cache: Path | None,
    scale: Part | None,
    budget: str | None,
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
      edgewise run pycoder.edge "def add(a, b):" --scale best-of-n --budget 4
    """
    if logprobs is not None and not as_json:
        raise click.UsageError("Option '--logprobs' needs '--json'.")
    _check_scale(scale, budget, {"--n": n, "--logprobs": logprobs, "--prompt-cache": prompt_cache})
    text = _stdin() if prompt == "-" else prompt
    with generation.options() as options, _opened(bundle, context, text, prompt_cache) as runner:
        if scale:
            run_scaled(runner, text, scale, budget, options, as_json=as_json)
            return
        stream = runner.stream(text, **options, n=n, logprobs=logprobs)
        result = _print_json(stream) if as_json else _print(stream)
        if prompt_cache:
            _keep(runner, text, result, prompt_cache)


@contextmanager
def _opened(bundle: str, context: int | None, prompt: str, cache: Path | None) -> Iterator["Runner"]:
    """The bundle, which knows what the file holds of the prompt, and may keep there what is new."""
    from edgewise.runtime.prefix import LIMIT
    from edgewise.runtime.runner import Runner

    kept = cache is not None and cache.exists()
    known = cache.stat().st_size if cache and kept else 0
    if cache and not kept:
        _refuse_unwritable(cache)
    with Runner.open(bundle, context=context, prefix_cache=max(known, LIMIT)) as runner:
        if cache and runner.facts.source:
            raise CacheError(f"{cache}: {bundle} has an encoder, which reads prompts as a whole: leave this out")
        if cache and kept:
            runner.load_prefix(cache)
            tokens = runner.tokenizer.encode(prompt)
            if len(tokens) - runner.known_prefix(tokens) > runner.model.chunk:
                _refuse_unwritable(cache)
        yield runner


def _check_scale(scale: Part | None, budget: str | None, others: Mapping[str, object]) -> None:
    if scale is None:
        if budget is not None:
            raise click.UsageError("Option '--budget' needs '--scale'.")
        return
    for option, value in others.items():
        if value is not None:
            raise click.UsageError(f"Option '{option}' does not go with '--scale', which draws samples itself.")


def _print_json(stream: "Stream") -> "Result":
    result = stream.result()
    print_json({**asdict(result.completions[0]), **asdict(result)})
    return result


def _print(stream: "Stream") -> "Result":
    for piece in stream:
        if piece.sequence == 0:
            click.echo(piece.text, nl=False)
    click.echo()
    result = stream.result()
    _print_others(result)
    say_timings(result)
    return result


def _keep(runner: "Runner", prompt: str, result: "Result", path: Path) -> None:
    """Write what is known of the prompt now, where that is more than before."""
    block = runner.model.chunk
    tokens, cached = result.timings.prompt_tokens, result.timings.prompt_tokens_cached
    if tokens < block:
        talk(f"the prompt is not kept: it has {tokens} tokens, and they are kept in blocks of {block}")
    elif dropped := result.timings.prompt_tokens_dropped:
        talk(f"the prompt is not kept: {dropped} of its tokens were dropped, for it is longer than the context")
    elif cached < (tokens - 1) // block * block:
        talk(f"{path}: {runner.save_prefix(prompt, path)} tokens of the prompt are kept")


def _refuse_unwritable(path: Path) -> None:
    """Raises CacheError before anything is computed where what is new could not be kept."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CacheError(f"{path}: its folder is not there, or cannot be written in; name another file")


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
