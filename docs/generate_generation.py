"""docs: writes the reference at the end of generation.md, from what searches, processors and stop rules say."""

import importlib
import inspect
from pathlib import Path
from typing import Any

from edgewise.catalog import Catalog
from edgewise.describe import options
from edgewise.registry import registry
from edgewise.search.sample import FILTERS, Sample

PAGE = Path(__file__).with_name("generation.md")
MARK = "## Reference\n"


def page() -> str:
    """The page: its prose as it is, and a reference as it should be."""
    prose = PAGE.read_text("utf-8").partition(MARK)[0]
    parts = registry()
    return "".join(
        (
            prose,
            MARK,
            "\nWritten by `python docs/generate_generation.py` from what their classes say.\n",
            *_section("Searches", parts.searches),
            "\n### Filters of `sample`\n",
            *(_part(name, type(make(Sample())), []) for name, make in FILTERS.items()),
            *_section("Processors", parts.processors),
            *_section("Stop rules", parts.stop_rules),
        )
    )


def _section(title: str, catalog: Catalog[Any]) -> list[str]:
    names = [name for name in catalog.names() if catalog.owner(name) == "edgewise"]
    kinds = {name: catalog.get(name) for name in names}
    return [f"\n### {title}\n", *(_part(name, kind, list(map(str, options(kind)))) for name, kind in kinds.items())]


def _part(name: str, kind: type[Any], known: list[str]) -> str:
    """Where it comes from, what it does, and its options."""
    source = (importlib.import_module(kind.__module__).__doc__ or "").partition(": ")[2].strip()
    lines = "".join(f"{option}\n" for option in known)
    block = f"\n```\n{lines}```\n" if known else ""
    return f"\n#### {name}\n\n{inspect.getdoc(kind)}\n\n*{_sentence(source)}*\n{block}"


def _sentence(text: str) -> str:
    """The text of a module: from "search: " on, as a sentence of its own, on one line."""
    text = " ".join(text.removeprefix("search: ").split())
    return text[:1].upper() + text[1:]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
