"""sdk: work of a vendor's library, in a process of its own: it may end that process, or never return.

The child is `python -m MODULE`. It gets a job as JSON on stdin and answers with JSON on the last line of stdout; where
it fails, the last line of stderr says why.
"""

import json
import re
import sys
from collections.abc import Callable
from typing import Any

from edgewise.catalog import one_line
from edgewise.child import run
from edgewise.errors import EdgewiseError, TargetError

LOGGED = re.compile(r"\[E:onnxruntime[^\]]*\] (?P<said>[^\x1b]+)")  # what ONNX Runtime logs as an error
LONGEST = 400  # characters of it


def ask(module: str, job: object, *, doing: str, seconds: float) -> Any:
    """What a child answers. Raises TargetError where it fails, ends or takes longer, with what it was `doing`."""
    try:
        child = run(module, given=json.dumps(job), seconds=seconds)
    except TimeoutError:
        raise TargetError(f"{doing} took more than {seconds:,.0f} s and was ended") from None
    if child.code == 0:
        return json.loads(child.said.splitlines()[-1])
    if child.signal:
        raise TargetError(f"{doing} ended the process it ran in ({child.signal})")
    raise TargetError(f"{doing} failed: {_reason(child.complained)}")


def answer(work: Callable[[Any], object]) -> int:
    """What the child's `main` is: the exit code."""
    try:
        result = work(json.load(sys.stdin))
    except Exception as error:
        print(" ".join(str(error).split()) if isinstance(error, EdgewiseError) else one_line(error), file=sys.stderr)
        return 1
    print(f"\n{json.dumps(result)}", flush=True)
    return 0


def _reason(said: str) -> str:
    """The first error that ONNX Runtime logged, which says more than what it raises in the end; else the last line."""
    logged = LOGGED.search(said)
    text = logged["said"] if logged else (said.strip().splitlines() or ["it said nothing"])[-1]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
