"""sdk, scaling: what may be spent on a prompt, and what has been."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

from edgewise.errors import OptionError
from edgewise.search.stops import GO_ON, STOP, Progress, Verdict

UNITS = {"": "samples", "tokens": "tokens", "s": "seconds", "J": "joules"}
FORM = re.compile(r"\s*(?:([0-9]+)(tokens|)|([0-9]+(?:\.[0-9]+)?)(s|J))\s*")


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The most that is spent on a prompt; whichever is reached first ends it. None: no bound.

    `tokens` are new ones, of all models together; `joules` those of the whole processor (or board).
    """

    samples: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    joules: float | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in UNITS.values() if getattr(self, name) is not None}
        if not given:
            raise OptionError("the budget has no bound; give samples, tokens, seconds or joules")
        for name, bound in given.items():
            if not bound > 0:
                raise OptionError(f"the budget is {bound} {name}; it must be more than 0")

    @classmethod
    def parse(cls, text: str) -> Self:
        """`16` samples, `2000tokens`, `30s`, `50J`, or several of them with commas between."""
        bounds: dict[str, float] = {}
        for part in text.split(","):
            found = FORM.fullmatch(part)
            if not found:
                raise OptionError(f"the budget '{text}' is not of the form 16, 2000tokens, 30s, 50J or 16,30s")
            whole, counted, number, unit = found.groups()
            name = UNITS[unit or counted]
            if name in bounds:
                raise OptionError(f"the budget '{text}' bounds the {name} twice; bound them once")
            bounds[name] = int(whole) if whole else float(number)
        return cls(**bounds)  # type: ignore[arg-type]


@dataclass
class Ledger:
    """What has been spent so far."""

    budget: Budget
    joules: Callable[[], float | None]  # so far; None where nothing counts them
    clock: Callable[[], float] = time.perf_counter
    samples: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def seconds(self) -> float:
        return self.clock() - self._started

    @property
    def spent(self) -> bool:
        """Whether nothing is left."""
        return self.full or (self.budget.samples is not None and self.samples >= self.budget.samples)

    @property
    def full(self) -> bool:
        """Whether nothing is left for another token."""
        budget = self.budget
        return (
            (budget.tokens is not None and self.tokens >= budget.tokens)
            or (budget.seconds is not None and self.seconds >= budget.seconds)
            or (budget.joules is not None and (self.joules() or 0.0) >= budget.joules)
        )

    @property
    def left(self) -> float:
        """Seconds that may still be spent; without a bound of them, infinity."""
        return math.inf if self.budget.seconds is None else self.budget.seconds - self.seconds

    def affordable(self, count: int) -> int:
        """How many of so many samples are left."""
        return count if self.budget.samples is None else min(count, self.budget.samples - self.samples)


@dataclass(frozen=True)
class Limit:
    """Ends all answers that are being drawn once the budget is spent, and counts their tokens."""

    name: ClassVar[str] = "budget"
    ledger: Ledger

    def check(self, progress: Progress) -> Verdict:
        self.ledger.tokens += 1
        return STOP if self.ledger.full else GO_ON
