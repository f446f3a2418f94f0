"""sdk, runtime: texts for an encoder: as tokens, cut to its context, and put together with others of their length."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edgewise.errors import ContextOverflow, GenerationError, OptionError
from edgewise.facts import EncoderFacts
from edgewise.options import unknown
from edgewise.runtime.prompt import LONGEST_TOKEN
from edgewise.text.tokenizer import Pieces, Tokenizer

logger = logging.getLogger(__name__)

TOKENS = 512  # that are computed at once, with those that fill up
STEP = 4  # lengths are filled up to: products in blocks compute so many rows at once, and others otherwise
SPREAD = 1.25  # the longest text of those computed together has at most so many times the tokens of the shortest


def read_texts(
    texts: Sequence[str], tokenizer: Tokenizer, facts: EncoderFacts, *, prefix: str = "", truncate: bool = True
) -> list[Pieces]:
    """Each text as tokens. What is longer than the context loses its end, with a warning that counts them.

    Raises GenerationError for a text without a token of its own, or with one that the model lacks, ContextOverflow for
    one that is too long where nothing may be cut.
    """
    if isinstance(texts, str):
        raise OptionError("texts: give a list of them; a single one is a list too: [text]")
    limit, found, cut = facts.context_length, list[Pieces](), 0
    most = LONGEST_TOKEN * limit
    for number, text in enumerate(texts, start=1):
        which = f"text {number} of {len(texts)}"
        written = (prefix + text).strip() if facts.task == "feature-extraction" else text  # as sentence-transformers
        if not truncate and len(written) > most:
            raise ContextOverflow(f"{which} has {len(written):,} characters; the model reads {limit} tokens")
        pieces = tokenizer.pieces((written.lower() if facts.lower_case else written)[:most])
        if all(pieces.special) or not text.strip():
            raise GenerationError(f"{which} is empty: leave it out")
        if (largest := max(pieces.ids)) >= facts.vocab_size:
            known = facts.vocab_size
            raise GenerationError(f"{which} has the token {largest}; the model knows {known}")
        if (length := len(pieces.ids)) > limit:
            if not truncate:
                raise ContextOverflow(f"{which} has {length} tokens; the model reads {limit}")
            pieces, cut = pieces.cut(limit), cut + 1
        found.append(pieces)
    if cut:
        logger.warning("%d of %d texts are longer than %d tokens: their ends are not read", cut, len(found), limit)
    return found


def prefix_of(facts: EncoderFacts, prompt: str | None) -> str:
    """What is put before each text: the prompt of that name, the model's own where none is named, "" for none."""
    name = facts.prompt if prompt is None else prompt
    if not name:
        return ""
    if name not in facts.prompts:
        raise OptionError(unknown("prompt", name, facts.prompts))
    return facts.prompts[name]


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of all texts, those of similar length together; the longest first, which take most memory."""
    members: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        longest = lengths[members[0]] if members else 0
        if members and (longest * (len(members) + 1) > TOKENS or longest > SPREAD * lengths[number] + 1):
            yield members
            members = []
        members.append(number)
    if members:
        yield members


def feed(rows: Sequence[Sequence[int]], facts: EncoderFacts) -> dict[str, NDArray[np.int64]]:
    """All that a graph may ask for, `[texts, length]`, and the mask: texts are filled up at the end.

    A text's own numbers are then the same, to 1e-5, whatever it is computed with.
    """
    longest = max(map(len, rows))
    length = max(longest, min(-(-longest // STEP) * STEP, facts.context_length))
    ids = np.full((len(rows), length), facts.pad, np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    positions = np.ascontiguousarray(np.broadcast_to(np.arange(length), ids.shape))
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(ids),
        "position_ids": positions,
    }
