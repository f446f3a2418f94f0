"""sdk, tasks: questions with what counts as right, read from JSON lines."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.errors import OptionError
from edgewise.options import unknown
from edgewise.strictjson import loads
from edgewise.text.chat import Message

FIELDS = ("id", "prompt", "answer", "choices", "tests", "text")
KINDS = "answer, choices with answer, tests, or text alone"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One line of a file of tasks. Which of the fields are there says what kind it is.

    `answer`: the text shall say one of `answers`; `choices`: one of several is to be the most probable, the one at
    `right`; `tests`: Python that passes after the program; `text`: no question, how well it is foretold.
    """

    id: str
    kind: str  # answer, choices, tests, text
    prompt: str | tuple[Message, ...] = ""
    answers: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    right: int = 0
    tests: str = ""
    text: str = ""

    @property
    def begins_program(self) -> bool:
        """Whether the prompt is the beginning of the program that is tested; of a conversation it is not."""
        return self.kind == "tests" and isinstance(self.prompt, str)


def read_tasks(path: Path) -> tuple[Task, ...]:
    """All tasks of a file. Raises OptionError, which names the line and the field."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: {error}") from error
    tasks = tuple(_task(line, f"{path}, line {n}", str(n)) for n, line in enumerate(lines, 1) if line.strip())
    if not tasks:
        raise OptionError(f"{path} has no tasks; each is a line of JSON, such as {json.dumps(EXAMPLE)}")
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise OptionError(f"{path}: two tasks have the id '{task.id}'; each has its own")
        seen.add(task.id)
    return tasks


EXAMPLE = {"prompt": "2+2=", "answer": "4"}


def _task(line: str, where: str, number: str) -> Task:
    try:
        fields = loads(line.encode())
    except ValueError as error:
        raise OptionError(f"{where} is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise OptionError(f"{where}: a task is a table with {KINDS}")
    for name in fields:
        if name not in FIELDS:
            raise OptionError(f"{where}: {unknown('field of a task', name, FIELDS)}")
    task_id = fields.get("id", number)
    if not isinstance(task_id, str | int) or isinstance(task_id, bool):
        raise OptionError(f"{where}: field 'id' is {task_id!r}; it must be a text or a whole number")
    kind = next((name for name in ("text", "choices", "tests", "answer") if name in fields), None)
    if kind is None:
        raise OptionError(f"{where}: nothing says what is right; give {KINDS}")
    return Task(id=str(task_id), kind=kind, **_READERS[kind](fields, where))


def _text(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    _refuse(fields, ("prompt", "answer", "choices", "tests"), "text", where)
    return {"text": _string(fields, "text", where)}


def _choices(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    _refuse(fields, ("tests",), "choices", where)
    choices = fields["choices"]
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(c, str) and c for c in choices):
        raise OptionError(f"{where}: field 'choices' is {choices!r}; it must be a list of two texts or more")
    answer = fields.get("answer")
    right = choices.index(answer) if answer in choices and isinstance(answer, str) else answer
    if not isinstance(right, int) or isinstance(right, bool) or not 0 <= right < len(choices):
        raise OptionError(f"{where}: field 'answer' is {answer!r}; it must be one of the choices, or its number from 0")
    return {"prompt": _prompt(fields, where), "choices": tuple(choices), "right": right}


def _tests(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    _refuse(fields, ("answer",), "tests", where)
    return {"prompt": _prompt(fields, where), "tests": _string(fields, "tests", where)}


def _answer(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    given = fields["answer"]
    answers = given if isinstance(given, list) else [given]
    if not answers or not all(isinstance(a, str | int | float) and not isinstance(a, bool) for a in answers):
        raise OptionError(f"{where}: field 'answer' is {given!r}; it must be a text, a number, or a list of them")
    return {"prompt": _prompt(fields, where), "answers": tuple(map(str, answers))}


_READERS = {"text": _text, "choices": _choices, "tests": _tests, "answer": _answer}


def _prompt(fields: Mapping[str, Any], where: str) -> str | tuple[Message, ...]:
    prompt = fields.get("prompt")
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(map(_is_message, prompt)):
        return tuple(prompt)
    raise OptionError(f"{where}: field 'prompt' is {prompt!r}; it must be a text, or a conversation of messages")


def _is_message(each: Any) -> bool:
    return isinstance(each, dict) and all(isinstance(each.get(name), str) for name in ("role", "content"))


def _string(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = fields[name]
    if not isinstance(value, str) or not value:
        raise OptionError(f"{where}: field '{name}' is {value!r}; it must be a text")
    return value


def _refuse(fields: Mapping[str, Any], names: tuple[str, ...], kind: str, where: str) -> None:
    for name in names:
        if name in fields:
            raise OptionError(f"{where}: field '{name}' does not go with '{kind}'")
