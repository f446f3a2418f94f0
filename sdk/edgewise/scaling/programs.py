"""sdk, scaling: verifiers that run something: unit tests, a schema, a tool of the user's; all of it confined."""

import json
import math
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
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
        programs = (program_of(before, each.text) for each in candidates)
        return tuple(_passed(run_program(program, self.tests, limits=self.limits)) for program in programs)
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
        return tuple(_passed(self._checked(each.text)) for each in candidates)
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
        self._words()

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        command = self._words()
        return tuple(_scored(run_tool(command, self._given(context, each), limits=self.limits)) for each in candidates)
        yield

    def _words(self) -> list[str]:
        """The command, with files by their whole paths: it runs in a folder of its own. Raises OptionError."""
        try:
            words = shlex.split(self.command) if isinstance(self.command, str) else list(self.command)
        except ValueError as error:
            raise OptionError(f"the command of verifier 'tool' cannot be read: {error}") from error
        if not words or (program := shutil.which(words[0])) is None:
            raise OptionError(f"the command of verifier 'tool' is not there: {' '.join(words) or 'it is empty'}")
        return [
            str(Path(program).absolute()),
            *(str(Path(w).absolute()) if Path(w).is_file() else w for w in words[1:]),
        ]

    def _given(self, context: Context, candidate: Candidate) -> str:
        return json.dumps({"prompt": context.prompt, "text": candidate.text, "answer": candidate.answer})


def program_of(prompt: str, text: str) -> str:
    """The program that a text has, or is the end of."""
    blocks = FENCED.findall(text)
    return str(blocks[-1]) if blocks else prompt + text


def _passed(outcome: Outcome) -> Verdict:
    """What a model wrote says nothing of itself: it passes or not."""
    return Verdict(float(outcome.passed), outcome.passed, outcome.why)


def _scored(outcome: Outcome) -> Verdict:
    """A tool of the user's may print a number."""
    try:
        score = float(outcome.said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        score = 1.0
    return Verdict(score if outcome.passed and math.isfinite(score) else 0.0, outcome.passed, outcome.why)
