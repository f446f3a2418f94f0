"""sdk, scaling: verifiers that run something: unit tests, a schema, a tool of the user's; all of it confined."""

import json
import math
import re
import shlex
import shutil
from abc import abstractmethod
from dataclasses import dataclass, replace
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
class Confined(Verifier):
    """A verifier that runs something, within limits and the time that is left."""

    limits: Limits = DEFAULT

    @abstractmethod
    def run(self, context: Context, candidate: Candidate, limits: Limits) -> Outcome:
        """How it ends for a candidate."""

    def verdict(self, outcome: Outcome) -> Verdict:
        """What a model wrote says nothing of itself: it passes or not."""
        return Verdict(float(outcome.passed), outcome.passed, outcome.why)

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        return tuple(self._judged(context, each) for each in candidates)
        yield  # never reached: what makes this a generator

    def _judged(self, context: Context, candidate: Candidate) -> Verdict:
        seconds = min(self.limits.seconds, context.left())
        if seconds <= 0:
            return Verdict(0.0, False, "the budget was spent before it was verified")
        return self.verdict(self.run(context, candidate, replace(self.limits, seconds=seconds)))


@dataclass(frozen=True, kw_only=True)
class UnitTests(Confined):
    """Whether tests in Python pass after the program: the last fenced block, or else the prompt and what follows it."""

    name: ClassVar[str] = "unit-tests"
    tests: str = ""  # none: those of the task

    def judge(self, context: Context, candidates: tuple[Candidate, ...]) -> Judging:
        if not (self.tests or context.tests):
            raise OptionError("verifier 'unit-tests' has no tests; give it some, or put it to tasks that have them")
        return (yield from super().judge(context, candidates))

    def run(self, context: Context, candidate: Candidate, limits: Limits) -> Outcome:
        before = context.prompt if isinstance(context.prompt, str) else ""
        return run_program(program_of(before, candidate.text), self.tests or context.tests, limits=limits)


@dataclass(frozen=True, kw_only=True)
class JsonSchema(Confined):
    """Whether an answer, or its last fenced block, is JSON of a schema (jsonschema, of the extra `eval`)."""

    name: ClassVar[str] = "json-schema"
    schema: str  # as JSON

    def __post_init__(self) -> None:
        require("jsonschema")
        try:
            json.loads(self.schema)
        except (ValueError, RecursionError) as error:
            raise OptionError(f"the schema is no JSON: {error}") from error

    def run(self, context: Context, candidate: Candidate, limits: Limits) -> Outcome:
        text = program_of("", candidate.text)
        return run_program(SCHEMA.format(text=text, schema=self.schema), limits=limits)


@dataclass(frozen=True, kw_only=True)
class Tool(Confined):
    """Runs a command: JSON of prompt, text and answer on stdin; exit code 0 accepts; a number it prints is the score.

    The last line that it prints on stderr is the feedback.
    """

    name: ClassVar[str] = "tool"
    command: str | tuple[str, ...]

    def __post_init__(self) -> None:
        self._words()

    def run(self, context: Context, candidate: Candidate, limits: Limits) -> Outcome:
        given = {"prompt": context.prompt, "text": candidate.text, "answer": candidate.answer}
        return run_tool(self._words(), json.dumps(given), limits=limits)

    def verdict(self, outcome: Outcome) -> Verdict:
        """The last number that it prints, of a tool of the user's."""
        try:
            score = float(outcome.said.strip().splitlines()[-1])
        except (IndexError, ValueError):
            score = 1.0
        return Verdict(score if outcome.passed and math.isfinite(score) else 0.0, outcome.passed, outcome.why)

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


def program_of(prompt: str, text: str) -> str:
    """The last fenced block of a text; without one, the text as it goes on from the prompt."""
    blocks = FENCED.findall(text)
    return str(blocks[-1]) if blocks else prompt + text
