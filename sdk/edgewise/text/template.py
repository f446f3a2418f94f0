"""sdk, text: the jinja2 environment that chat templates are written for: that of transformers, in a sandbox.

A template is a program that came with a checkpoint. The sandbox keeps it from doing anything but rendering; its output
is bounded, but in this process its time and memory are not: see `edgewise.text.apart`.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from edgewise.errors import GenerationError

if TYPE_CHECKING:
    import jinja2


LIMIT = 16 << 20  # characters that a template may render


def render(source: str, variables: Mapping[str, Any]) -> str:
    """What a template makes of the variables. Raises GenerationError for whatever goes wrong in it."""
    pieces, length = [], 0
    try:
        for piece in compile_template(source).generate(variables):
            length += len(piece)
            if length > LIMIT:
                raise GenerationError(f"the chat template renders more than {LIMIT} characters")
            pieces.append(piece)
    except GenerationError:
        raise
    except Exception as error:  # a template is a program: it can fail in any way
        raise GenerationError(f"the chat template failed: {' '.join(str(error).split())}") from error
    return "".join(pieces)


@lru_cache(maxsize=8)
def compile_template(source: str) -> "jinja2.Template":
    """The template, ready to render. Raises GenerationError for one that cannot be read."""
    import jinja2

    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError) as error:
        raise GenerationError(f"the chat template cannot be read: {' '.join(str(error).split())}") from error


@cache
def _environment() -> "jinja2.Environment":
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}` shows trainers which part is the model's; it renders as what it holds."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> list[Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_refuse, strftime_now=_now)
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise GenerationError(f"the chat template refuses the conversation: {' '.join(str(message).split())}")


def _now(form: str) -> str:
    return datetime.now().strftime(form)
