"""sdk, scaling: verifiers that run something: unit tests, a schema, a tool of the user's; all of it confined."""

import json
import re
import shlex
from dataclasses import dataclass
from typing import ClassVar

from edgewise.confined.limits import DEFAULT, Limits
from edgewise.confined.run import Outcome, run_program, run_tool
from edgewise.errors import OptionError
from edgewise.extras import require
from edgewise.scaling.protocol import Candidate, Context
from edgewise.scaling.verifier import Judging, Verdict, Verifier

FENCED = re.compile(r"```(?:\w*)\n(.*?)(?:```|\Z)", re.DOTALL)
SCHEMA = """\
import json, jsonschema
jsonschema.validate(json.loads({text!r}), json.loads({schema!r}))
"""


@dataclass(frozen=True, kw_only=True)
class UnitTests(Verifier):
    """Whether tests in Python pass after the program: the last fenced block, or else the prompt and what follows it."""

    name: ClassVar[str] = "unit-tests"
    tests: str
    limits: Limits = DEFAULT

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        before = context.prompt if isinstance(context.prompt, str) else ""
        programs = (program_of(before, each.text, self.tests) for each in candidates)
        return tuple(_verdict(run_program(program, limits=self.limits)) for program in programs)
        yield


@dataclass(frozen=True, kw_only=True)
class JsonSchema(Verifier):
    """Whether an answer, or its last fenced block, is JSON of a schema (jsonschema, of the extra `eval`)."""

    name: ClassVar[str] = "json-schema"
    schema: str  # as JSON
    limits: Limits = DEFAULT

    def __post_init__(self) -> None:
        require("jsonschema")
        try:
            json.loads(self.schema)
        except (ValueError, RecursionError) as error:
            raise OptionError(f"the schema is no JSON: {error}") from error

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        return tuple(_verdict(self._checked(each.text)) for each in candidates)
        yield

    def _checked(self, text: str) -> Outcome:
        blocks = FENCED.findall(text)
        program = SCHEMA.format(text=blocks[-1] if blocks else text, schema=self.schema)
        return run_program(program, limits=self.limits)


@dataclass(frozen=True, kw_only=True)
class Tool(Verifier):
    """Runs a command: JSON of prompt, text and answer on stdin; exit code 0 accepts; a number it prints is the score.

    What it prints on stderr is the feedback.
    """

    name: ClassVar[str] = "tool"
    command: str | tuple[str, ...]
    limits: Limits = DEFAULT

    def __post_init__(self) -> None:
        if not self.command:
            raise OptionError("the command of verifier 'tool' is empty")

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        command = shlex.split(self.command) if isinstance(self.command, str) else self.command
        return tuple(_verdict(run_tool(command, self._given(context, each), limits=self.limits)) for each in candidates)
        yield

    def _given(self, context: Context, candidate: Candidate) -> str:
        return json.dumps({"prompt": context.prompt, "text": candidate.text, "answer": candidate.answer})


def program_of(prompt: str, text: str, tests: str) -> str:
    """The program that a text has, or is the end of, and its tests."""
    blocks = FENCED.findall(text)
    return f"{blocks[-1] if blocks else prompt + text}\n\n{tests}\n"


def _verdict(outcome: Outcome) -> Verdict:
    try:
        score = float(outcome.said.strip().splitlines()[-1]) if outcome.passed else 0.0
    except (IndexError, ValueError):
        score = float(outcome.passed)
    return Verdict(score, outcome.passed, outcome.why)
