"""plugins, vocabulary: a tokenizer.json and configurations in which tokens have other numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tokenizers

from edgewise.errors import GraphError
from edgewise_plugins.vocabulary.choose import Vocabulary

Renumber = Callable[[int], int]

LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids")


def tokenizer_with(vocabulary: Vocabulary, kept: Sequence[int], file: bytes) -> str:
    """The tokenizer with these tokens, numbered from 0 in their order; `file` is its tokenizer.json so far."""
    numbers = {old: new for new, old in enumerate(kept)}
    texts = vocabulary.texts
    known = set(_texts_of(vocabulary.written["model"]["vocab"]))
    data = dict(vocabulary.written)
    data["model"] = vocabulary.kind.keep([texts[old] for old in kept if texts.get(old) in known])
    data["added_tokens"] = [{**token, "id": numbers[token["id"]]} for token in data["added_tokens"]]
    data["post_processor"] = _processor(data["post_processor"], numbers.__getitem__)
    before = json.loads(file)
    data["truncation"], data["padding"] = before.get("truncation"), before.get("padding")
    if data["padding"]:
        data["padding"] = {**data["padding"], "pad_id": numbers[data["padding"]["pad_id"]]}
    content = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    _check(content, {texts[old]: new for old, new in numbers.items() if old in texts})
    return content


def renumbered(config: Mapping[str, Any], renumber: Renumber) -> dict[str, Any]:
    """A configuration with other numbers for the tokens that it names; what is no token stays."""
    return {key: _entry(key, value, renumber) for key, value in config.items()}


def named(config: Mapping[str, Any]) -> set[int]:
    """The tokens that a configuration names."""
    found: set[int] = set()

    def note(number: int) -> int:
        found.add(number)
        return number

    renumbered(config, note)
    return found


def _entry(key: str, value: Any, renumber: Renumber) -> Any:
    if key == "added_tokens_decoder" and isinstance(value, Mapping):
        return {str(renumber(int(number))): token for number, token in value.items()}
    if isinstance(value, Mapping):
        return renumbered(value, renumber)
    if key == "sequence_bias" and isinstance(value, list):
        return [[_numbers(tokens, renumber), bias] for tokens, bias in value]
    return _numbers(value, renumber) if key.endswith("_token_id") or key in LISTS else value


def _numbers(value: Any, renumber: Renumber) -> Any:
    """Numbers in lists of any depth; those below 0 stand for no token."""
    if isinstance(value, list):
        return [_numbers(each, renumber) for each in value]
    return renumber(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else value


def _processor(processor: Any, renumber: Renumber) -> Any:
    """What is put around a text, by its numbers."""
    if processor is None:
        return None
    changed = dict(processor)
    if "processors" in changed:
        changed["processors"] = [_processor(each, renumber) for each in changed["processors"]]
    for key in ("sep", "cls"):
        if key in changed:
            text, number = changed[key]
            changed[key] = [text, renumber(number)]
    if "special_tokens" in changed:
        changed["special_tokens"] = {
            text: {**token, "ids": [renumber(number) for number in token["ids"]]}
            for text, token in changed["special_tokens"].items()
        }
    return changed


def _texts_of(vocabulary: Any) -> Sequence[str]:
    return list(vocabulary) if isinstance(vocabulary, Mapping) else [piece for piece, _ in vocabulary]


def _check(content: str, numbers: Mapping[str, int]) -> None:
    """Raises GraphError where a tokenizer does not number its tokens so."""
    found = tokenizers.Tokenizer.from_str(content).get_vocab(True)
    for text, number in numbers.items():
        if found.get(text) != number:
            raise GraphError(
                f"tokenizer.json: {text!r} would be token {found.get(text)}, and its row is {number}: tokens in an "
                "order of this kind cannot be pruned"
            )
