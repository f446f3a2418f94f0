"""sdk, bundle: parses foreign files in a process of its own, because the libraries that parse them can end the process.

A mutated tokenizer.json aborts the process that loads it, a hostile template runs for ever, a damaged graph divides by
zero inside of ONNX Runtime: none of it can be caught. `python -m edgewise.bundle.probe text FOLDER` is the child.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgewise.catalog import one_line
from edgewise.child import run
from edgewise.errors import EdgewiseError, GenerationError, MissingDevice, MissingExtra

TIMEOUT_S = 600
TEXT_CPU_S = 30  # the largest tokenizers in use take 2 s
TEXT_BYTES = 2 << 30
SAMPLE = "def f(x):\n    return 'h\u00e9llo \u4f60\u597d \U0001f600'\n"

Kind = Literal["text", "graph"]

reading: Path | None = None  # in the child


@dataclass(frozen=True)
class Answer:
    """What a child has found: a problem, or what it said last."""

    problem: str | None
    said: str = ""


def probe(kind: Kind, folder: Path) -> str | None:
    """What is wrong with a folder's tokenizer and templates ("text") or its graphs ("graph"), on one line."""
    return ask(kind, folder).problem


def ask(kind: Kind, folder: Path) -> Answer:
    """Have a folder read, or its graphs run, by a child. Of graphs it says which provider computes what, in JSON."""
    try:
        child = run("edgewise.bundle.probe", kind, str(folder), seconds=TIMEOUT_S)
    except TimeoutError:
        return Answer(f"{folder}: could not be read within {TIMEOUT_S} s")
    said = (child.said.splitlines() or [str(folder)])[-1]
    if child.signal:
        return Answer(f"{said} ends the process that reads it ({child.signal}); it is damaged or hostile")
    if child.code:
        return Answer((child.complained.splitlines() or [f"{folder}: cannot be read"])[-1])
    return Answer(None, said)


def read_text(folder: Path) -> None:
    """Load the tokenizer and the chat template of a folder, and use them once, as any runtime would."""
    if not (folder / "tokenizer.json").exists():
        return
    from tokenizers import Tokenizer as Foreign

    from edgewise.text.chat import CONFIG, TEMPLATE, ChatTemplate
    from edgewise.text.tokenizer import Tokenizer

    _at(folder / "tokenizer.json")
    foreign = Foreign.from_file(str(folder / "tokenizer.json"))
    foreign.decode(foreign.encode(SAMPLE).ids)
    tokenizer = Tokenizer.load(folder)
    _at(folder / TEMPLATE if (folder / TEMPLATE).exists() else folder / CONFIG)
    if template := ChatTemplate.load(folder, tokenizer):
        try:
            template.encode([{"role": "user", "content": SAMPLE}])
        except GenerationError as error:
            if error.__cause__ is not None:  # without: the template refuses such a conversation, as it may
                raise


def run_graphs(folder: Path) -> None:
    """Run a token through each graph of a bundle, as a runner would, and say which provider computed which node.

    (The bundle's hashes are not verified.)
    """
    from edgewise import placement
    from edgewise.bundle.read import Bundle

    bundle = Bundle.open(folder, verify=False)
    found = {}
    try:
        for name in sorted(bundle.manifest.graphs):
            _at(bundle.graph(name))
            found[name] = placement.run(folder, bundle.manifest, name)
        seen = placement.Placement(found)
    except (MissingDevice, MissingExtra) as error:
        seen = placement.Placement(not_run=" ".join(str(error).split()))
    print(seen.write(), flush=True)


def _at(file: Path) -> None:
    """Tell the parent which file is read now: it may be the last that it hears."""
    global reading
    reading = file
    print(file, flush=True)


def _limit() -> None:
    """So that what is hostile fails here, and soon."""
    try:
        import resource
    except ImportError:  # not on this system
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (TEXT_CPU_S, TEXT_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (TEXT_BYTES, TEXT_BYTES))


def main(kind: str, folder: str) -> int:
    try:
        if kind == "text":
            _limit()
            read_text(Path(folder))
        else:
            run_graphs(Path(folder))
    except BaseException as error:  # tokenizers panics with an exception that is no Exception
        text = " ".join(str(error).split()) if isinstance(error, EdgewiseError) else one_line(error)
        print(text if folder in text else f"{reading}: {text}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
