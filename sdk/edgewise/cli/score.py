"""sdk, cli: `score`: how probable a bundle holds texts."""

from dataclasses import asdict

import click

from edgewise.cli.output import json_option, print_json, print_table


@click.command()
@click.argument("bundle")
@click.argument("prompt")
@click.argument("texts", nargs=-1, required=True)
@click.option("--top", default=0, metavar="K", help="With --json: also the K most probable tokens of each place.")
@json_option
def score(bundle: str, prompt: str, texts: tuple[str, ...], top: int, as_json: bool) -> None:
    """Say how probable each of TEXTS is after PROMPT, in nats.

    The prompt is computed once. It can be empty, "": a text's first token is not scored then.

    \b
    Example:
      edgewise score pycoder.edge "import " os numpy queue
    """
    from edgewise.runtime.runner import Runner

    if top and not as_json:
        raise click.UsageError("Option '--top' needs '--json'.")
    with Runner.open(bundle) as runner:
        scores = runner.scores(prompt, texts, top=top)
    rows = [
        {"text": text, "logprob": each.total, "tokens": len(each.tokens), "perplexity": each.perplexity}
        for text, each in zip(texts, scores, strict=True)
    ]
    if as_json:
        print_json([{**row, **asdict(each)} for row, each in zip(rows, scores, strict=True)])
    else:
        print_table(
            [{**row, "logprob": f"{row['logprob']:.3f}", "perplexity": f"{row['perplexity']:.4g}"} for row in rows]
        )
