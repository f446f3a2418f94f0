"""sdk, search: how many tokens to draft: what gives the most tokens a second, by what was measured so far.

A verification of w drafted tokens gives 1 + a + a^2 + ... + a^w tokens, where a is the share of drafts that are
accepted (arXiv 2211.17192, equation 1). It takes the seconds of a step of the model, which are measured for each
number of tokens, and those of drafting.
"""

from collections import deque

WIDTHS = (1, 3, 5, 7, 11, 15)  # with the token before them an even number of tokens: see ahead.py
RECENT = 8  # measurements whose least counts: what disturbs a machine only ever takes time
MEMORY = 0.9  # what verdicts on drafts weigh when the next one is there
PROBE = 3
EXPLORE, MORE = 16, 1.1  # drafts until one is wider, if it promises so many times more: a measurement may have erred
PAUSE, LONGER = 16, 4  # steps without a draft until it is tried again; so many times more when that was in vain
CERTAIN = 0.999  # the share of drafts that are accepted where all were


class Pace:
    """Chooses the width of the next draft: `fixed` where that is given, or else by measurements; 0 is no draft.

    Where no width pays, drafting pauses, each time that it was tried in vain for longer; where none could ever pay, for
    good, as far as what was measured says.
    What is chosen changes the speed, never the text.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self.fixed = fixed
        self._steps: dict[int, _Recent] = {}  # seconds of the model, by tokens
        self._drafting = _Recent()  # seconds a drafted token
        self._verdicts: dict[int, _Verdicts] = {}  # by class of drafts
        self._pause = self._rest = PAUSE
        self._drafts = 0

    def width(self, promise: int, most: int) -> int:
        """Tokens to draft now, at most `most`; `promise` is the class of the draft that there would be, 0 for none."""
        if not promise or most < 1:
            return 0
        if self.fixed is not None:
            return min(self.fixed, most)
        share = self._verdicts[promise].share if promise in self._verdicts else 0.5
        best = self._best(share, most)
        if best:
            self._pause = self._rest = PAUSE
            return self._explored(best, share, most)
        self._rest -= 1
        if self._rest > 0:
            return 0
        self._pause = self._rest = LONGER * self._pause
        return min(PROBE, self._best(CERTAIN, most))

    def stepped(self, tokens: int, seconds: float) -> None:
        """A step of the model with so many tokens took so long."""
        self._steps.setdefault(tokens, _Recent()).add(seconds)

    def drafted(self, tokens: int, seconds: float) -> None:
        """So many tokens were drafted in so long."""
        self._drafting.add(seconds / tokens)

    def judged(self, promise: int, accepted: int, drafted: int) -> None:
        """Of a draft of that class, the first `accepted` tokens were right; after a wrong one nothing counts."""
        self._verdicts.setdefault(promise, _Verdicts()).add(accepted, accepted < drafted)

    def _explored(self, best: int, share: float, most: int) -> int:
        """The best width, or now and then the next wider one."""
        self._drafts += 1
        wider = next((width for width in WIDTHS if best < width <= most), best)
        promising = _tokens(wider, share) > MORE * _tokens(best, share)
        return wider if promising and self._drafts % EXPLORE == 0 else best

    def _best(self, share: float, most: int) -> int:
        """Of the widths that were tried, and one beyond them, the one with the most tokens a second; 0 for no draft."""
        best, fastest = 0, 0.0
        if self._steps:
            fastest = 1 / self._seconds(2)
        largest = max(self._steps, default=0)
        for width in WIDTHS:
            if width > most:
                break
            rate = _tokens(width, share) / (self._seconds(width + 1) + width * self._drafting.least)
            if rate > fastest:
                best, fastest = width, rate
            if width >= largest:
                break
        return best

    def _seconds(self, tokens: int) -> float:
        """Of a step: as measured, or in line with the two measurements next to it; like the only one there is."""
        if tokens in self._steps:
            return self._steps[tokens].least
        sizes = sorted(self._steps)
        if len(sizes) < 2:
            return self._steps[sizes[0]].least if sizes else 1.0
        after = next((i for i, size in enumerate(sizes) if size > tokens), len(sizes) - 1)
        low, high = sizes[max(after, 1) - 1], sizes[max(after, 1)]
        slope = max(0.0, (self._steps[high].least - self._steps[low].least) / (high - low))
        return self._steps[low].least + slope * (tokens - low)


def _tokens(width: int, share: float) -> float:
    """What a verification gives on average."""
    return (1 - share ** (width + 1)) / (1 - share)


class _Recent:
    """The least of the last measurements; 0 before any."""

    def __init__(self) -> None:
        self._values: deque[float] = deque(maxlen=RECENT)
        self.least = 0.0

    def add(self, value: float) -> None:
        self._values.append(value)
        self.least = min(self._values)


class _Verdicts:
    """The share of drafted tokens that are right, recent ones first; it begins as one of two."""

    def __init__(self) -> None:
        self._accepted = self._judged = 0.0

    def add(self, accepted: int, failed: bool) -> None:
        self._accepted = MEMORY * self._accepted + accepted
        self._judged = MEMORY * self._judged + accepted + failed

    @property
    def share(self) -> float:
        return (self._accepted + 1) / (self._judged + 2)
