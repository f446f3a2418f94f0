"""sdk, search: how many tokens to draft: what gives the most tokens a second, by what was measured so far.

A verification of w drafted tokens gives E = 1 + a + a^2 + ... + a^w tokens, where a is the share of drafts that are
accepted (arXiv 2211.17192, equation 1). It takes the seconds of a step of the model, which are measured for each
number of tokens, and those of drafting.
"""

from bisect import bisect_left
from collections import deque
from statistics import median

WIDTHS = (1, 3, 5, 7, 11, 15)  # with the token before them an even number of tokens: see ahead.py
RECENT = 9  # measurements whose median counts
MEMORY = 0.9  # what a verdict on drafts weighs when the next one is there
PROBE = 3
PAUSE, LONGEST_PAUSE = 16, 512  # steps without a draft until it is tried again


class Pace:
    """Chooses the width of the next draft: `fixed` where that is given, or else by measurements; 0 is no draft.

    Where no width pays, drafting pauses; it is tried again after a while, which doubles each time that is in vain.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._steps: dict[int, deque[float]] = {}  # seconds of the model, by tokens
        self._drafts: deque[float] = deque(maxlen=RECENT)  # seconds a drafted token
        self._accepted: dict[int, float] = {}  # of each class of drafts
        self._judged: dict[int, float] = {}
        self._pause = self._rest = PAUSE

    def width(self, promise: int, most: int) -> int:
        """Tokens to draft now, at most `most`; `promise` is the class of the draft that there would be, 0 for none."""
        if not promise or most < 1:
            return 0
        if self._fixed is not None:
            return min(self._fixed, most)
        best = max((0, *(w for w in self._tried() if w <= most)), key=lambda w: self.rate(w, promise))
        if best:
            self._pause = self._rest = PAUSE
            return best
        self._rest -= 1
        if self._rest > 0:
            return 0
        self._pause = self._rest = min(2 * self._pause, LONGEST_PAUSE)
        return min(PROBE, most)

    def stepped(self, tokens: int, seconds: float) -> None:
        """A step of the model with so many tokens took so long."""
        self._steps.setdefault(tokens, deque(maxlen=RECENT)).append(seconds)

    def drafted(self, tokens: int, seconds: float) -> None:
        """So many tokens were drafted in so long."""
        self._drafts.append(seconds / tokens)

    def judged(self, promise: int, accepted: int, drafted: int) -> None:
        """Of a draft of that class, the first `accepted` tokens were right; after a wrong one nothing counts."""
        told = accepted + (accepted < drafted)
        self._accepted[promise] = MEMORY * self._accepted.get(promise, 0.0) + accepted
        self._judged[promise] = MEMORY * self._judged.get(promise, 0.0) + told

    def rate(self, width: int, promise: int) -> float:
        """Tokens a second that are expected of this width; before anything is measured, of any unit of time."""
        share = (self._accepted.get(promise, 0.0) + 1) / (self._judged.get(promise, 0.0) + 2)
        tokens = (1 - share ** (width + 1)) / (1 - share)
        drafting = median(self._drafts) if self._drafts else 0.0
        return tokens / (self._seconds(width + 1) + width * drafting)

    def _tried(self) -> tuple[int, ...]:
        """Widths that were measured, and one step beyond them."""
        most = max(self._steps, default=0)
        return WIDTHS[: bisect_left(WIDTHS, most - 1) + 2]

    def _seconds(self, tokens: int) -> float:
        """Of a step: measured, or in line with the two nearest measurements; as the only one, optimistically."""
        known = sorted((size, median(times)) for size, times in self._steps.items())
        if not known:
            return 1.0
        if len(known) == 1:
            return known[0][1]
        place = min(max(bisect_left(known, (max(tokens, 2), 0.0)), 1), len(known) - 1)
        (size0, seconds0), (size1, seconds1) = known[place - 1 : place + 1]
        slope = max(0.0, (seconds1 - seconds0) / (size1 - size0))
        return max(seconds0 + slope * (max(tokens, 2) - size0), 1e-9)
