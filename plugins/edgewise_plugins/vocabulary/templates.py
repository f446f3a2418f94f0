"""plugins, vocabulary: what a chat template writes around messages: tokens of it stay."""

import re
from collections.abc import Iterator

from edgewise.companions import Companions

TEMPLATE, CONFIG = "chat_template.jinja", "tokenizer_config.json"
ROLES = ("system", "user", "assistant", "tool")
QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"")
CODE = re.compile(r"\{[{%#].*?[}%#]\}", re.DOTALL)
ESCAPES = {r"\n": "\n", r"\t": "\t", r"\'": "'", r"\"": '"', r"\\": "\\"}


def template_texts(companions: Companions) -> Iterator[str]:
    """Texts that the templates of a checkpoint hold, and names of roles, alone and at the end of a line."""
    sources = list(_sources(companions))
    for source in sources:
        yield from CODE.split(source)
        for pair in QUOTED.findall(source):
            text = "".join(pair)
            for escape, meant in ESCAPES.items():
                text = text.replace(escape, meant)
            yield text
            yield from (f"{role}{text}" for role in ROLES)
    if sources:
        yield from (text for role in ROLES for text in (role, f"{role}\n"))


def _sources(companions: Companions) -> Iterator[str]:
    if TEMPLATE in companions.names:
        yield companions.read(TEMPLATE).decode("utf-8", "replace")
    if CONFIG in companions.names:
        given = companions.table(CONFIG).get("chat_template")
        for each in given if isinstance(given, list) else [given]:
            source = each.get("template") if isinstance(each, dict) else each
            if isinstance(source, str):
                yield source
