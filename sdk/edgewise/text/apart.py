"""sdk, text: renders a template that nobody vouches for in a process of its own, which is ended when it takes too much.

`python -m edgewise.text.apart` is the child: JSON of the source and the variables on stdin, JSON of the text on stdout.
"""

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from edgewise.child import run
from edgewise.errors import GenerationError
from edgewise.text.template import render

TIMEOUT_S = 10
BYTES = 1 << 30  # of memory


def render_apart(source: str, variables: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> str:
    """As `edgewise.text.template.render`, within bounds of time and memory. Raises GenerationError also for these."""
    environment = {key: value for key, value in os.environ.items() if key in ("PATH", "PYTHONPATH", "SYSTEMROOT")}
    try:
        request = json.dumps({"source": source, "variables": dict(variables)})
        child = run("edgewise.text.apart", given=request, seconds=timeout_s, environment=environment)
        reply = json.loads(child.said) if child.code == 0 else {}
    except TimeoutError:
        raise GenerationError(f"the chat template took more than {timeout_s:g} s; it is hostile or broken") from None
    except TypeError as error:
        raise GenerationError(f"a message holds what is no JSON: {error}") from error
    except ValueError as error:
        raise GenerationError(f"the chat template gave no text: {error}") from error
    if "error" in reply:
        raise GenerationError(str(reply["error"]))
    if "text" not in reply:
        raise GenerationError("the chat template ended the process that rendered it: it took too much memory or time")
    return str(reply["text"])


def _limit() -> None:
    try:
        import resource
    except ImportError:  # not on this system: the parent's clock remains
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (TIMEOUT_S, TIMEOUT_S))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))


def main() -> int:
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    request = json.load(sys.stdin)
    _limit()
    try:
        reply = {"text": render(request["source"], request["variables"])}
    except GenerationError as error:
        reply = {"error": str(error)}
    json.dump(reply, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
