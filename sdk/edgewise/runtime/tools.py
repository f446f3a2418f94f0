"""sdk, runtime: a conversation in which the model calls functions of the program that it runs in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from edgewise.errors import GenerationError, OptionError
from edgewise.runtime.generation import Options
from edgewise.runtime.result import Result
from edgewise.text.chat import Message
from edgewise.text.tools import Tool, ToolCall, call, read_calls

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner

ROUNDS = 8  # answers that may call tools before one has to do without


@dataclass(frozen=True)
class Exchange:
    """What was said: the conversation with all that was added to it, and the answer that called no tool."""

    messages: tuple[Message, ...]
    result: Result
    calls: tuple[ToolCall, ...]


def with_tools(
    runner: "Runner",
    messages: Sequence[Message],
    tools: Sequence[Tool | Callable[..., Any]],
    *,
    rounds: int = ROUNDS,
    **options: Unpack[Options],
) -> Exchange:
    """Answer a conversation; functions that the answer calls are called, and the model goes on with what they gave.

    A tool that fails, does not exist or gets arguments that it does not take gives the model an error to react to.
    Raises GenerationError when so many rounds end in calls, and what `Runner.chat` raises.
    """
    if rounds < 1:
        raise OptionError(f"rounds is {rounds}; it must be 1 or more")
    known = [tool if isinstance(tool, Tool) else Tool.of(tool) for tool in tools]
    said: list[Message] = list(messages)
    made: list[ToolCall] = []
    for _ in range(rounds):
        result = runner.chat(said, tools=[tool.schema for tool in known], **options).result()
        answer, found = read_calls(result.answer)
        said.append(_message(answer, found))
        if not found:
            return Exchange(tuple(said), result, tuple(made))
        for wanted in found:
            made.append(wanted)
            said.append({"role": "tool", "name": wanted.name, "content": call(known, wanted)})
    raise GenerationError(f"the model still calls tools after {rounds} rounds; the last: {made[-1].name}")


def _message(text: str, calls: Sequence[ToolCall]) -> Message:
    called = {"tool_calls": [each.message() for each in calls]} if calls else {}
    return {"role": "assistant", "content": text, **called}
