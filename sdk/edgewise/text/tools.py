"""sdk, text: tools: functions that a model may call, and the calls in what it writes, as values."""

import ast
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from edgewise.errors import GenerationError, OptionError
from edgewise.options import unknown

JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


@dataclass(frozen=True)
class Tool:
    """A function with what a model is told about it; `parameters` is a JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: Callable[..., Any] = field(repr=False)

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Tool":
        """A tool from a function: its name, its docstring, and its parameters with their types.

        Raises OptionError for a parameter whose type has no JSON schema, or none at all.
        """
        hints = typing.get_type_hints(function)
        properties, required = {}, []
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise OptionError(f"tool '{function.__name__}': parameter '{name}' cannot be given by name")
            if name not in hints:
                raise OptionError(f"tool '{function.__name__}': parameter '{name}' has no type")
            properties[name] = _schema(hints[name], f"tool '{function.__name__}': parameter '{name}'")
            if parameter.default is parameter.empty:
                required.append(name)
        schema = {"type": "object", "properties": properties, "required": required}
        return cls(function.__name__, inspect.getdoc(function) or "", schema, function)

    @property
    def schema(self) -> dict[str, Any]:
        """What templates get."""
        told = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": told}


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called."""

    name: str
    arguments: Mapping[str, Any]

    def message(self) -> dict[str, Any]:
        """The call as part of an assistant's message, as templates read it."""
        return {"type": "function", "function": {"name": self.name, "arguments": dict(self.arguments)}}


def call(tools: Iterable[Tool], wanted: ToolCall) -> str:
    """The answer of a tool, as text. What goes wrong in it is an answer too, which the model can react to."""
    known = {tool.name: tool for tool in tools}
    tool = known.get(wanted.name)
    if tool is None:
        return f"error: {unknown('tool', wanted.name, known)}"
    try:
        inspect.signature(tool.function).bind(**wanted.arguments)
    except TypeError as error:
        return f"error: {wanted.name}: {error}"
    try:
        found = tool.function(**wanted.arguments)
    except Exception as error:  # a tool is the caller's code; the conversation goes on
        return f"error: {type(error).__name__}: {error}"
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False, default=str)


def read_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """What a model wrote, apart from the calls in it, and the calls.

    Known are calls between `<tool_call>` tags (Hermes, Qwen), an answer that is nothing but JSON of a call or of
    several (Llama 3, Mistral), and one that is nothing but a Python list of calls (Llama 3.2, Llama 4).
    Raises GenerationError for a call that is begun and cannot be read.
    """
    if TAGGED.search(text):
        return TAGGED.sub("", text).strip(), tuple(_from_json(found) for found in TAGGED.findall(text))
    if OPENED in text:
        raise GenerationError("a tool call is not closed")
    body = text.strip()
    if body.startswith(("{", "[{")):
        return _all_json(text, body)
    if LISTED.match(body):
        return _all_python(text, body)
    return text, ()


OPENED = "<tool_call>"
TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
LISTED = re.compile(r"\[\s*[A-Za-z_][\w.]*\(")


def _from_json(text: str) -> ToolCall:
    try:
        return _call(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise GenerationError(f"a tool call is no JSON: {error}") from error


def _call(data: Any) -> ToolCall:
    """A table with a name and arguments (or parameters), which may be JSON themselves."""
    if isinstance(data, Mapping) and isinstance(data.get("function"), Mapping):
        data = data["function"]
    name = data.get("name") if isinstance(data, Mapping) else None
    if not isinstance(name, str):
        raise GenerationError(f"a tool call names no tool: {json.dumps(data)[:80]}")
    arguments = data.get("arguments", data.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = json.loads(arguments or "{}")
    if not isinstance(arguments, Mapping):
        raise GenerationError(f"the call of '{name}' has no table of arguments: {json.dumps(arguments)[:80]}")
    return ToolCall(name, dict(arguments))


def _all_json(text: str, body: str) -> tuple[str, tuple[ToolCall, ...]]:
    """An answer that is JSON, but not of calls, is an answer."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return text, ()
    found = data if isinstance(data, list) else [data]
    if not found or not all(isinstance(each, Mapping) and CALL_KEYS & each.keys() and "name" in each for each in found):
        return text, ()
    return "", tuple(_call(each) for each in found)


CALL_KEYS = {"arguments", "parameters"}


def _all_python(text: str, body: str) -> tuple[str, tuple[ToolCall, ...]]:
    try:
        nodes = ast.parse(body, mode="eval").body
        calls = nodes.elts if isinstance(nodes, ast.List) else []
        found = tuple(_python_call(node) for node in calls)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text, ()
    return ("", found) if found else (text, ())


def _python_call(node: ast.expr) -> ToolCall:
    """`name(key=literal, ...)`; nothing is executed."""
    if not isinstance(node, ast.Call) or node.args or any(each.arg is None for each in node.keywords):
        raise ValueError("not a call by names")
    return ToolCall(ast.unparse(node.func), {str(each.arg): ast.literal_eval(each.value) for each in node.keywords})


def _schema(hint: Any, what: str) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in JSON_TYPES:
        return {"type": JSON_TYPES[hint]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema(each, what) for each in arguments]}
    if hint is list or origin is list:
        return {"type": "array", **({"items": _schema(arguments[0], what)} if arguments else {})}
    if hint is dict or origin is dict:
        return {"type": "object", **({"additionalProperties": _schema(arguments[1], what)} if arguments else {})}
    raise OptionError(f"{what}: {hint} has no JSON schema; known: str, int, float, bool, list, dict, Literal, None")
