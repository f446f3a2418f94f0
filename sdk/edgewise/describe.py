"""sdk: what the options of a class are, as it declares them: type, default, and the comment beside it."""

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
from typing import Any


@dataclasses.dataclass(frozen=True)
class Option:
    """A field of a dataclass as its source has it; one without a default must be given."""

    name: str
    type: str
    default: str | None
    text: str  # the comment beside it

    def __str__(self) -> str:
        """As in the source: `top_k: int = 0  # 0: all`."""
        default = "" if self.default is None else f" = {self.default}"
        return f"{self.name}: {self.type}{default}" + (f"  # {self.text}" if self.text else "")


def options(kind: type[Any]) -> list[Option]:
    """The options of a class, in order, inherited ones first; none where it is no dataclass."""
    if not dataclasses.is_dataclass(kind):
        return []
    declared: dict[str, tuple[str, str]] = {}
    for cls in reversed(kind.__mro__):
        if dataclasses.is_dataclass(cls):
            declared |= _declared(cls)
    return [_option(field, *declared[field.name]) for field in dataclasses.fields(kind) if field.init]


def _option(field: dataclasses.Field[Any], annotation: str, text: str) -> Option:
    return Option(field.name, annotation, _default(field), text)


def _declared(cls: type[Any]) -> dict[str, tuple[str, str]]:
    """Type and comment of each field in the body of the class."""
    source = textwrap.dedent(inspect.getsource(cls))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        node.target.id: (ast.unparse(node.annotation), comments.get(node.end_lineno or 0, ""))
        for node in body.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _default(field: dataclasses.Field[Any]) -> str | None:
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return None if field.default is dataclasses.MISSING else repr(field.default)
