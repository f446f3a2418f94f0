"""exporters, decoder: reading a configuration strictly: a key is understood, known to be harmless, or refused."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from edgewise.errors import CheckpointError
from edgewise.options import known

HARMLESS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_name_or_path",
        "architectures",
        "attention_dropout",
        "auto_map",
        "bos_token_id",
        "cache_implementation",
        "chunk_size_feed_forward",
        "dtype",
        "embd_pdrop",
        "eos_token_id",
        "finetuning_task",
        "hidden_dropout",
        "id2label",
        "initializer_range",
        "label2id",
        "model_type",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "resid_pdrop",
        "return_dict",
        "tokenizer_class",
        "torch_dtype",
        "transformers.js_config",
        "transformers_version",
        "unsloth_fixed",
        "unsloth_version",
        "use_cache",
    }
)


class Config:
    """A `config.json`, or a table in it, that remembers which of its keys were read.

    `defaults` fill keys that are absent (a key that is null was said to be off, and stays so).
    """

    def __init__(self, data: Mapping[str, Any], *, where: str, defaults: Mapping[str, Any] | None = None) -> None:
        self.data = {**(defaults or {}), **data}
        self.where = where
        self.read: set[str] = set()

    def get(self, key: str) -> Any:
        """The value as it stands; None where it is null or absent."""
        self.read.add(key)
        return self.data.get(key)

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int = 2**31 - 1) -> int:
        value = self._given(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self.error(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = 0.0, most: float = 1e12) -> float:
        value = self._given(key, default)
        if not _is_number(value) or not above < value <= most:
            raise self.error(key, f"a number above {above:g}, at most {most:g}")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._given(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def choice(self, key: str, names: Collection[str], default: str | None = None) -> str:
        value = self._given(key, default)
        if value not in list(names):
            raise self.error(key, f"one of {known(names)}")
        return str(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        values = self._given(key, None)
        if not isinstance(values, list) or len(values) != count or not all(_is_number(v) and v > 0 for v in values):
            raise self.error(key, f"a list of {count} numbers above 0")
        return tuple(map(float, values))

    def choices(self, key: str, names: Sequence[Any], count: int) -> tuple[Any, ...]:
        values = self._given(key, None)
        if not isinstance(values, list) or len(values) != count or not all(value in names for value in values):
            raise self.error(key, f"a list of {count}, each one of {known(map(str, names))}")
        return tuple(values)

    def table(self, key: str) -> "Config":
        """The table under a key; an empty one where it is null or absent."""
        value = self.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.error(key, "a table")
        return Config(value or {}, where=f"{self.where}: {key}")

    def must_be(self, key: str, value: float) -> None:
        """Refuse a key that is given, and given as anything else."""
        if self.get(key) not in (None, value):
            raise self.error(key, f"{value!r}".lower())

    def refuse_unread(self, harmless: Iterable[str] = (), *, advice: str | None = None) -> None:
        """Refuse the first key that nobody has read, is not harmless and is not switched off."""
        for key in sorted(set(self.data) - self.read - set(harmless)):
            if self.data[key] not in (None, False, 0, "", [], {}):
                raise CheckpointError(
                    f"{self.where}: the key '{key}' ({_short(self.data[key])}) is not known here and may change the "
                    f"computation; {advice or f'known: {known(self.read)}'}"
                )

    def error(self, key: str, expected: str) -> CheckpointError:
        return CheckpointError(f"{self.where}: '{key}' is {_short(self.data.get(key))}; expected {expected}")

    def _given(self, key: str, default: Any) -> Any:
        value = self.get(key)
        if value is None:
            value = default
        if value is None:
            raise CheckpointError(f"{self.where}: '{key}' is missing")
        return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
