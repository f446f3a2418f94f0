"""sdk, runtime: other bundles beside the one that answers: a draft, an amateur."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgewise.errors import OptionError
from edgewise.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edgewise.runtime.runner import Runner


def check_assistants(tokenizer: Tokenizer, assistants: Sequence["Runner"]) -> None:
    """Tokens must mean the same to all of them. Raises OptionError for the first to which they do not."""
    for number, assistant in enumerate(assistants, 1):
        if assistant.tokenizer.fingerprint != tokenizer.fingerprint:
            ours, theirs = tokenizer.vocabulary, assistant.tokenizer.vocabulary
            other = min((token for token, text in ours.items() if theirs.get(token) != text), default=len(ours))
            raise OptionError(
                f"assistant {number} has another tokenizer: token {other} is {theirs.get(other)!r} to it and "
                f"{ours.get(other)!r} to the bundle; give a bundle of the same family of models"
            )
