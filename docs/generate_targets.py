"""docs: writes the end of targets.md: which target is proved how, and the reference of profiles, from the code."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from edgewise.bundle.manifest import Provider
from edgewise.describe import Option, options
from edgewise.registry import registry
from edgewise.target import (
    BLOCKS,
    KERNEL,
    Compile,
    Device,
    DType,
    Efficiency,
    Encoding,
    Form,
    Hardware,
    Kernel,
    Kind,
    Lengths,
    Needs,
    Number,
    Numerics,
    Proof,
    System,
    Target,
)

PAGE = Path(__file__).with_name("targets.md")
MARK = "## Every target\n"
PROOF = {"run": "run for real", "emulated": "compiled and emulated", "specified": "by specification only"}
TABLES = {
    "The profile itself": Target,
    "`[[providers]]`": Provider,
    "`[device]`": Device,
    "`[hardware]`": Hardware,
    'A number: `{ value = 17e9, kind = "published", source = "..." }`': Number,
    "`[hardware.efficiency.decode]`, `[hardware.efficiency.prefill]`": Efficiency,
    '`[hardware.kernels."int4 block 32"]`': Kernel,
    "`[numerics]`": Numerics,
    "`[needs]`": Needs,
    "`[needs.static]`": Lengths,
    "`[compile]`": Compile,
}
NAMES = {"DType": DType, "Encoding": Encoding, "System": System, "Form": Form, "Kind": Kind, "Proof": Proof}


def page() -> str:
    """The page: its prose as it is, and all that follows as it should be."""
    prose = PAGE.read_text("utf-8").partition(MARK)[0]
    return "".join(
        (prose, MARK, "\nWritten by `python docs/generate_targets.py` from profiles and code.\n\n", *_rest())
    )


def _rest() -> Iterator[str]:
    yield "| target | device | runs on | dialect | tested |\n|---|---|---|---|---|\n"
    for name in registry().devices():
        if registry().targets.owner(name) == "edgewise":
            yield _row(registry().get_target(name))
    yield "\n## What a profile may say\n\n"
    yield "The keys of each table, their types, and what they are where a profile is silent.\n"
    for title, kind in TABLES.items():
        yield f"\n### {title}\n\n{inspect.getdoc(kind)}\n\n```\n"
        yield "".join(f"{_plain(option)}\n" for option in options(kind))
        yield "```\n"
    yield "\n### Names\n\n"
    for title, choices in NAMES.items():
        yield f"- {title}: {_listed(get_args(choices))}\n"
    yield f"- block sizes: {_listed(BLOCKS)}\n- kernels: {KERNEL}\n"
    yield '- RecipeStep: a pass with its options, as in a recipe: `pass = "quantize"`, `bits = 4`\n'


def _row(target: Target) -> str:
    providers = ", ".join(provider.name.removesuffix("ExecutionProvider") for provider in target.providers)
    dialect = ", ".join(f"`{step.name}`" for step in target.lowering)
    return f"| `{target.name}` | {target.description} | {providers} | {dialect} | {PROOF[target.proof]} |\n"


def _plain(option: Option) -> Option:
    """Without the default of a table, which has a part of its own here."""
    table = (option.default or "").endswith(")") and option.default != "()"
    return replace(option, default=None) if table else option


def _listed(choices: tuple[Any, ...]) -> str:
    return ", ".join(f"`{choice}`" for choice in choices)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
