"""sdk, runtime: other bundles beside the one that answers: a draft, an amateur."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewise.errors import OptionError
from edgewise.facts import Facts
from edgewise.search.guided import Guided
from edgewise.search.protocol import Search

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner


def check_assistants(runner: "Runner", assistants: Sequence["Runner"], search: Search) -> None:
    """The search must have a use for them, and tokens must mean the same to all. Raises OptionError."""
    tokenizer = runner.tokenizer
    if len(assistants) > _used(search):
        raise OptionError(
            f"assistants given: {len(assistants)}; search '{search.name}' has a use for {_used(search)}: "
            "speculative and amateur take one, ensemble up to 15"
        )
    for number, assistant in enumerate(assistants, 1):
        if not isinstance(assistant.facts, Facts):
            raise OptionError(f"assistant {number} holds a model that generates no text; give one that does")
        if bool(assistant.facts.source) != bool(runner.facts.source):
            reads, does = ("an", "has none") if assistant.facts.source else ("no", "has one")
            raise OptionError(f"assistant {number} has {reads} encoder, and the bundle {does}: give one like it")
        if assistant.tokenizer.fingerprint != tokenizer.fingerprint:
            ours, theirs = tokenizer.vocabulary, assistant.tokenizer.vocabulary
            other = min((token for token, text in ours.items() if theirs.get(token) != text), default=len(ours))
            raise OptionError(
                f"assistant {number} has another tokenizer: token {other} is {theirs.get(other)!r} to it and "
                f"{ours.get(other)!r} to the bundle; give a bundle of the same family of models"
            )


def refuse_other_prompts(search: Search) -> None:
    """An encoder reads one text for all rows. Raises OptionError for a search with prompts of its own."""
    own = {"prompts": getattr(search, "prompts", ()), "negative": isinstance(search, Guided) and search.scale != 1}
    for option, given in own.items():
        if given:
            raise OptionError(
                f"search '{search.name}' has a prompt of its own ({option}); the encoder of this model reads one text, "
                "which all rows answer: take another search"
            )
    inner = getattr(search, "search", None)
    if isinstance(inner, Search):
        refuse_other_prompts(inner)


def _used(search: Search) -> int:
    """By a search, or by the one that it is around."""
    inner = getattr(search, "search", None)
    return max(search.assistants, _used(inner) if isinstance(inner, Search) else 0)
