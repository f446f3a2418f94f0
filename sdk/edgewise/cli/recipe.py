"""sdk, cli: what is to be done to a model: a recipe, or a budget for which one is found."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgewise.recipe import Recipe

BUDGETS = ("max_bytes", "max_ms", "max_mean_kld")

OPTIONS = (
    click.option(
        "--recipe", type=click.Path(path_type=Path), help="A TOML file of steps, instead of the target's own."
    ),
    click.option(
        "--max-bytes", type=int, metavar="N", help="Instead of a recipe: bits for each matrix, for weights of N bytes."
    ),
    click.option("--max-ms", type=float, metavar="MS", help="The same, for so long a token on one thread."),
    click.option(
        "--max-mean-kld", type=float, metavar="NATS", help="The same, for at most so far from the float model."
    ),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets them as one `recipe`: a path, or what pass `mix` does within the budget."""

    @wraps(command)
    def collected(*, recipe: Path | None, **given: Any) -> Any:
        budget = {name: given.pop(name) for name in BUDGETS}
        return command(
            recipe=_recipe(recipe, {key: value for key, value in budget.items() if value is not None}), **given
        )

    decorated: Callable[..., Any] = collected
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return decorated


def _recipe(path: Path | None, budget: dict[str, Any]) -> "Path | Recipe | None":
    if not budget:
        return path
    if path:
        flags = " and ".join(f"'--{name.replace('_', '-')}'" for name in budget)
        raise click.UsageError(f"Give '--recipe' or {flags}; a recipe's own pass 'mix' takes a budget as its options.")
    from edgewise.recipe import Recipe, RecipeStep

    return Recipe((RecipeStep("mix", budget),))
