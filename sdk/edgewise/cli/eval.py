"""sdk, cli: `eval`: how good a bundle is on a text, or at tasks."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import json_option, print_json
from edgewise.cli.parts import read_part
from edgewise.cli.progress import bars
from edgewise.errors import OptionError
from edgewise.facts import EncoderFacts

if TYPE_CHECKING:
    from edgewise.calibration.texts import CalibrationText
    from edgewise.quality.report import Distance, Quality


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("eval")
@click.argument("bundle")
@click.option("--text", type=click.Path(path_type=Path), help="A file, JSON lines, or a folder of them.")
@click.option("--against", metavar="OTHER", help="The checkpoint that it was made from, or another bundle.")
@click.option("--tokens", type=int, default=8192, show_default=True, help="How much of the text is taken.")
@click.option("--length", type=int, default=512, show_default=True, help="Tokens of a sequence.")
@click.option("--tasks", type=_FILE, help="JSON lines of questions.")
@click.option("--extract", default="whole", show_default=True, help="Where an answer is in a text: last_number, ...")
@click.option("--samples", type=int, default=1, show_default=True, help="Of each task with tests, for pass@k.")
@click.option("--max-tokens", type=int, help="New tokens of an answer at most.")
@click.option("--search", metavar="NAME[:KEY=VALUE,...]", callback=read_part, help="How tokens are chosen.")
@click.option("--seed", type=int, help="The same seed gives the same answers.")
@click.option("--stop", multiple=True, metavar="TEXT", help="A text that ends an answer; repeat for more.")
@click.option("--scale", metavar="NAME[:KEY=VALUE,...]", callback=read_part, help="Spend more on each answer.")
@click.option(
    "--assistant", "assistants", multiple=True, metavar="BUNDLE", help="A further model of a search or scaler."
)
@click.option("--budget", help="With --scale: of each task, such as 16 or 2000tokens.  [default: 16]")
@click.option("--perturb", multiple=True, metavar="NAME", help="The tasks once more, with: typos, case, order.")
@click.option("--batch", type=int, help="Answers that are generated together; 1 measures latency.  [default: 8]")
@click.option("--prices", type=_FILE, help="TOML of what a device and its energy cost.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Keep the result for `report`.")
@json_option
def evaluate(bundle: str, text: Path | None, tasks: Path | None, as_json: bool, **options: Any) -> None:
    """Measure how well a bundle foretells a text that it has not seen, or how many tasks it solves.

    With --against also how far it is from that model: KL divergence, perplexity ratio, greedy text. Tasks are lines of
    JSON: a prompt with an answer, with choices, or with tests; docs/tasks.md has them all. An evaluation that is
    stopped goes on where it was.

    \b
    Example:
      edgewise eval pycoder.edge --text examples/pycoder/heldout.txt --tokens 2048
      edgewise eval pycoder.edge --text examples/pycoder/heldout.txt --tokens 2048 --against examples/pycoder
      edgewise eval pycoder.edge --tasks examples/pycoder/tasks.jsonl --max-tokens 8 -o greedy.json
    """
    if (text is None) == (tasks is None):
        raise click.UsageError("Give one of '--text' and '--tasks'.")
    _refuse_other(text is not None)
    if text is not None:
        _foretell(bundle, text, options, as_json=as_json)
    else:
        assert tasks is not None
        _solve(bundle, tasks, options, as_json=as_json)


OF_TEXT = ("against", "tokens", "length")


def _refuse_other(of_text: bool) -> None:
    """Options of the one kind of evaluation do not go with the other: none is ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in ("bundle", "text", "tasks", "as_json"):
            continue
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and (name in OF_TEXT) != of_text:
            needed = "--text" if name in OF_TEXT else "--tasks"
            raise click.UsageError(f"Option '{parameter.opts[-1]}' needs '{needed}'.")


def _solve(bundle: str, tasks: Path, options: Mapping[str, Any], *, as_json: bool) -> None:
    from edgewise.cli.tasks import evaluate
    from edgewise.registry import registry

    given = {name: value for name, value in options.items() if name not in OF_TEXT}
    if given["budget"] and not given["scale"]:
        raise click.UsageError("Option '--budget' needs '--scale'.")
    search, scaler, perturb = given.pop("search"), given.pop("scale"), given.pop("perturb")
    generation = {name: given.pop(name) for name in ("max_tokens", "seed", "stop")}
    generation["search"] = search and search.table(registry().searches)
    evaluate(bundle, tasks, options=generation, scaler=scaler, perturbations=perturb, as_json=as_json, **given)


def _foretell(bundle: str, text: Path, options: Mapping[str, Any], *, as_json: bool) -> None:
    from edgewise.bundle.read import Bundle
    from edgewise.calibration.texts import CalibrationText
    from edgewise.quality.evaluate import evaluate

    against = options["against"]
    given = CalibrationText(text, options["tokens"], options["length"])
    if isinstance(Bundle.open(bundle, verify=False).manifest.facts, EncoderFacts):
        _compare_encoders(bundle, given, against, as_json=as_json)
        return
    with bars() as progress:
        found = evaluate(bundle, given, against=against, progress=progress)
    if as_json:
        print_json(asdict(found))
    else:
        click.echo("\n".join(_lines(found, against)))


def _compare_encoders(bundle: str, text: "CalibrationText", against: str | None, *, as_json: bool) -> None:
    """How far vectors, or probabilities of labels, are from those of another one; each line of the text is one."""
    from edgewise.bundle.encoder_card import figures
    from edgewise.bundle.read import Bundle
    from edgewise.quality.encoders import evaluate_encoder

    if against is None:
        raise OptionError(f"{bundle} foretells no text: give what its vectors or labels are held against, --against")
    found = asdict(evaluate_encoder(Bundle.open(bundle), text, against))
    if as_json:
        print_json(found)
    else:
        click.echo("\n".join([f"{found['texts']:,} texts against {against}:", *figures(found)]))


def _lines(found: "Quality", against: str | None) -> list[str]:
    lines = [
        f"{found.tokens:,} tokens, in sequences of {found.length:,}",
        f"perplexity     {found.perplexity:.3f}",
        f"bits per byte  {found.bits_per_byte:.4f}",
    ]
    return [*lines, f"against {against}:", *_distance(found.distance)] if found.distance else lines


def _distance(found: "Distance") -> list[str]:
    return [
        f"KL divergence  mean {found.mean_kld:.5f} ± {found.mean_kld_error:.5f}, p99 {found.p99_kld:.4f}, "
        f"max {found.max_kld:.4f} nats per token",
        f"top-1          the same for {found.top1:.2%}",
        f"as a draft     {found.top1:.1%} of its most likely tokens are accepted, {found.overlap:.1%} of drawn ones",
        f"perplexity     {found.perplexity_ratio:.4f} ± {found.perplexity_ratio_error:.4f} "
        f"times {found.reference_perplexity:.3f}",
        *([f"greedy text    {found.greedy.sentence()}"] if found.greedy else []),
    ]
