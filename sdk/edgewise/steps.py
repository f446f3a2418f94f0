"""sdk: the steps of a recipe: each found by its name, made from its options, and applied with a word on what it did."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir

from edgewise.errors import EdgewiseError, MissingExtra, OptionError, RecipeError
from edgewise.options import parse
from edgewise.passes import BuildContext, Pass
from edgewise.recipe import RecipeStep
from edgewise.registry import registry
from edgewise.sizes import sizes_of, total

logger = logging.getLogger(__name__)


def resolve(steps: Sequence[RecipeStep], *, where: str) -> tuple[Pass, ...]:
    """The passes that steps name, with their options. Raises RecipeError, which names the step."""
    passes = []
    for number, step in enumerate(steps, start=1):
        try:
            kind = registry().passes.get(step.name)
            passes.append(parse(kind, step.options, what=f"step {number}, {step.name}"))
        except OptionError as error:
            raise RecipeError(f"{where}: {error}") from error
    return tuple(passes)


def apply(
    model: ir.Model,
    passes: Sequence[Pass],
    context: BuildContext,
    *,
    error: type[EdgewiseError],
    before: Callable[[ir.Model], None] | None = None,
) -> ir.Model:
    """The model after each of the passes; a failure is an `error` that names the pass with its options.

    `before` is shown the model before each step. What each step changed is logged, but for a plan, which says it whole.
    """
    size = 0 if context.dry else total(sizes_of(model)).bytes
    for number, step in enumerate(passes, start=1):
        if before:
            before(model)
        model.meta["edgewise"] = dataclasses.replace(context, following=tuple(passes[number:]))
        started = time.perf_counter()
        try:
            model = step(model).model
        except MissingExtra:
            raise
        except Exception as problem:
            kind = "" if isinstance(problem, EdgewiseError) else f"{type(problem).__name__}: "
            raise error(f"step {number}, {describe(step)}: {kind}{problem}") from problem
        seconds = time.perf_counter() - started
        if not context.dry:
            was, size = size, total(sizes_of(model)).bytes
            logger.info("%s: %s -> %s bytes, %.2f s", describe(step), f"{was:,}", f"{size:,}", seconds)
    return model


def describe(step: Pass) -> str:
    """A pass as one would write it: `quantize(bits=4, block_size=128)`; of a table of options, those that are set."""
    options = record(step)
    for key in options.keys() - {"pass"}:
        if dataclasses.is_dataclass(table := getattr(step, key)):
            options[key] = {name: value for name, value in options[key].items() if value != _default(table, name)}
    return f"{options.pop('pass')}({', '.join(f'{key}={value!r}' for key, value in options.items())})"


def _default(table: Any, name: str) -> object:
    return next(field.default for field in dataclasses.fields(table) if field.name == name)


def record(step: Pass) -> dict[str, Any]:
    """A pass with all of its options, those at their default too: what was done, whatever the defaults become."""
    options: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(step)))  # lists, as they come back from a file
    return {"pass": step.name, **options}
