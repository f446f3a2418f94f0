"""plugins, quantize: which matrix gets which format and method: ordered rules, the first that matches wins."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from edgewise.errors import OptionError
from edgewise.graph import Linear
from edgewise.options import check, known, record
from edgewise.quantized import Format

ROUTERS = ("router", "shared.router")

Bits = Literal[2, 4, 8]
BlockSize = Literal[32, 64, 128]
Method = Literal["nearest", "grid", "hqq", "gptq", "autoround"]


@dataclass(frozen=True)
class Choice:
    """What a matrix becomes, and by which method."""

    form: Format
    method: Method = "nearest"

    def __str__(self) -> str:
        return f"{self.form}, {self.method}"


@dataclass(frozen=True)
class Rule:
    """What some of the matrices get in place of the default.

    A matrix matches when its role, its layer and its weight's name all do: `role = "mlp.*"`, `layers = "0-3,20"`,
    `weight = "*.v_proj.weight"`. It gets the default with `bits`, `block_size`, `symmetric` and `method` changed as
    given, or, with `keep = true`, stays as it is.
    """

    role: str = "*"
    layers: str = "*"
    weight: str = "*"
    bits: Bits | None = None
    block_size: BlockSize | None = None
    symmetric: bool | None = None
    method: Method | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        check(self)
        in_layers(self.layers, None)
        if self.keep and (changes := {**self._form(), **self._method()}):
            raise OptionError(f"keep = true leaves a matrix as it is: it cannot also set {known(changes)}")

    def __str__(self) -> str:
        chosen = [f"{key} = '{getattr(self, key)}'" for key in ("role", "layers", "weight") if key in record(self)]
        return ", ".join(chosen) or "every matrix"

    def matches(self, linear: Linear) -> bool:
        return (
            fnmatchcase(linear.role, self.role)
            and fnmatchcase(linear.name, self.weight)
            and in_layers(self.layers, linear.layer)
        )

    def choice(self, default: Choice) -> Choice | None:
        """What a matching matrix gets; None: it is kept."""
        return None if self.keep else replace(default, form=replace(default.form, **self._form()), **self._method())

    def _form(self) -> dict[str, Any]:
        return _given(bits=self.bits, block_size=self.block_size, symmetric=self.symmetric)

    def _method(self) -> dict[str, Any]:
        return _given(method=self.method)


def _given(**settings: object) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if value is not None}


def in_layers(text: str, layer: int | None) -> bool:
    """Whether a layer is among `text`: "*", or numbers and ranges as in "0-3,20". Outside of the layers: only "*".

    >>> [layer for layer in range(8) if in_layers("0-2,5", layer)]
    [0, 1, 2, 5]
    """
    if text == "*":
        return True
    found = False
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        if not first.isdecimal() or (dash and not (last.isdecimal() and int(first) <= int(last))):
            raise OptionError(f"layers '{text}': expected numbers and ranges, as in '0-3,20'")
        found |= layer is not None and int(first) <= layer <= int(last or first)
    return found


def assign(linears: Iterable[Linear], default: Choice, rules: Sequence[Rule]) -> dict[str, Choice | None]:
    """What each weight becomes, by name; None: it stays as it is. Raises OptionError for a rule without effect.

    A router stays as it is unless a rule matches it: it is small, and its errors are other experts.
    A matrix that is met twice (tied embedding and lm_head) is one weight: a rule for either is a rule for both.
    """
    linears = list(linears)
    matched: dict[str, dict[str, int]] = {}  # weight: role: index of its rule
    for linear in linears:
        roles = matched.setdefault(linear.name, {})
        for index, rule in enumerate(rules):
            if rule.matches(linear):
                roles[linear.role] = index
                break
    used = {index for roles in matched.values() for index in roles.values()}
    if idle := set(range(len(rules))) - used:
        raise OptionError(_without_effect(min(idle), rules, linears))
    kept = {linear.name for linear in linears if linear.role in ROUTERS and not matched[linear.name]}
    return {name: None if name in kept else _settle(name, roles, default, rules) for name, roles in matched.items()}


def _settle(name: str, roles: dict[str, int], default: Choice, rules: Sequence[Rule]) -> Choice | None:
    choices = {rules[index].choice(default): f"{role} (rule {index + 1})" for role, index in roles.items()}
    if len(choices) > 1:
        said = " and ".join(f"{who} is to be {choice or 'kept'}" for choice, who in choices.items())
        raise OptionError(f"'{name}' is one matrix under two roles, and its rules disagree: {said}")
    return next(iter(choices), default)


def _without_effect(index: int, rules: Sequence[Rule], linears: Sequence[Linear]) -> str:
    rule = rules[index]
    if any(rule.matches(linear) for linear in linears):
        return f"rule {index + 1} ({rule}) is never reached: rules before it match all that it matches"
    layers = {linear.layer for linear in linears if linear.layer is not None}
    where = f"; layers: {min(layers)}-{max(layers)}" if layers else ""
    roles = known({linear.role for linear in linears})
    return f"rule {index + 1} ({rule}) matches no matrix of this model; roles: {roles}{where}"
