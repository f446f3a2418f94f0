"""sdk, cli: `eval --tasks` and `report`: how many answers are right, and what one costs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgewise.cli.output import print_json, talk
from edgewise.cli.parts import Part
from edgewise.cli.progress import bars

if TYPE_CHECKING:
    from edgewise.tasks.method import Method


def evaluate(
    bundle: str,
    tasks: Path,
    *,
    extract: str,
    samples: int,
    options: Mapping[str, Any],
    scaler: Part | None,
    budget: str | None,
    assistants: Sequence[str],
    perturbations: Sequence[str],
    batch: int | None,
    prices: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Put the tasks to the bundle, and print or keep what comes of it."""
    from edgewise.tasks.evaluate import BATCH, evaluate_tasks
    from edgewise.tasks.markdown import markdown
    from edgewise.tasks.prices import Prices

    with bars() as progress:
        found = evaluate_tasks(
            bundle,
            tasks,
            method=_method(extract, samples, options, scaler, budget),
            assistants=assistants,
            perturbations=perturbations,
            batch=batch or BATCH,
            prices=Prices.read(prices) if prices else None,
            progress=progress,
        )
    if output:
        output.write_text(json.dumps(found.data(), indent=2, ensure_ascii=False), "utf-8")
        talk(f"{output}: kept; look at it with: edgewise report {output}")
    if as_json:
        print_json(found.data())
    else:
        click.echo(markdown([found]), nl=False)


def _method(
    extract: str, samples: int, options: Mapping[str, Any], scaler: Part | None, budget: str | None
) -> "Method":
    from edgewise.registry import registry
    from edgewise.scaling.budget import Budget
    from edgewise.scaling.scale import BUDGET, find_scaler
    from edgewise.tasks.method import Method

    Budget.parse(budget or str(BUDGET))
    return Method(
        extract=extract,
        samples=samples,
        options={key: value for key, value in options.items() if value not in (None, [], ())},
        scaler=find_scaler(scaler.table(registry().scalers)) if scaler else None,
        budget=budget or str(BUDGET),
    )


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A page, if it ends in .html.")
def report(results: Sequence[Path], output: Path | None) -> None:
    """Put evaluations of tasks side by side; each is compared to the first one, task by task.

    RESULTS are what `eval --tasks -o FILE` has kept. Markdown goes to stdout.

    \b
    Example:
      edgewise report greedy.json -o report.html
    """
    from edgewise.tasks.html import page
    from edgewise.tasks.markdown import markdown
    from edgewise.tasks.result import Evaluation

    found: list[Evaluation] = [Evaluation.read(path) for path in results]
    if output is None:
        click.echo(markdown(found), nl=False)
        return
    text = page(found) if output.suffix in (".html", ".htm") else markdown(found)
    output.write_text(text, "utf-8")
    click.echo(f"{output}: {len(found)} evaluations")
