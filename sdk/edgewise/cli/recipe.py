"""sdk, cli: what is to be done to a model: a recipe, or a budget for which one is found."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgewise.recipe import Recipe

BUDGETS = ("max_bytes", "max_ms", "max_mean_kld")
CUTS = ("keep", "to_bytes")

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
    click.option(
        "--keep",
        type=float,
        metavar="SHARE",
        help="Before the target's recipe, or bits by a budget: prune layers, heads and neurons; this share is left.",
    ),
    click.option("--to-bytes", type=int, metavar="N", help="The same, until the weights take N bytes in the end."),
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command, which has a target, gets them as one `recipe`.

    That is a path, or what passes `prune` and `mix` do within the budgets.
    """

    @wraps(command)
    def collected(*, recipe: Path | None, target: str, **given: Any) -> Any:
        cut, budget = _given(given, CUTS), _given(given, BUDGETS)
        return command(recipe=_recipe(recipe, cut, budget, target), target=target, **given)

    decorated: Callable[..., Any] = collected
    for option in reversed(OPTIONS):
        decorated = option(decorated)
    return decorated


def _given(options: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Those of the options that have a value, taken out."""
    values = {name: options.pop(name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _recipe(path: Path | None, cut: dict[str, Any], budget: dict[str, Any], target: str) -> "Path | Recipe | None":
    if not (cut or budget):
        return path
    if path:
        flags = " and ".join(f"'--{name.replace('_', '-')}'" for name in (*cut, *budget))
        raise click.UsageError(
            f"Give '--recipe' or {flags}; in a recipe, passes 'prune' and 'mix' take budgets as their options."
        )
    if "to_bytes" in cut and "max_bytes" in budget:
        raise click.UsageError("Give '--to-bytes' or '--max-bytes': both bound the same bytes.")
    from edgewise.recipe import Recipe, RecipeStep
    from edgewise.registry import registry

    rest = (RecipeStep("mix", budget),) if budget else registry().get_target(target).recipe
    return Recipe((*([RecipeStep("prune", cut)] if cut else []), *rest))
