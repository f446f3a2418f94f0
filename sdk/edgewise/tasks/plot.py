"""sdk, tasks: a scatter of evaluations as SVG: accuracy against what it took, with the Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 520, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 16, 44


@dataclass(frozen=True)
class Point:
    """An evaluation: what it took, its accuracy with the interval, and what it is called."""

    x: float
    y: float
    low: float
    high: float
    label: str


def front(points: Sequence[Point]) -> list[Point]:
    """Those that no other one beats: none is as accurate for less."""
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def scatter(points: Sequence[Point], *, axis: str) -> str:
    """An SVG element; what is drawn takes its colours from the page, by classes."""
    ticks_x, ticks_y = decades([p.x for p in points]), steps([p.low for p in points], [p.high for p in points])
    x0, x1 = math.log10(ticks_x[0]), math.log10(ticks_x[-1])
    y0, y1 = ticks_y[0], ticks_y[-1]

    def across(x: float) -> float:
        return LEFT + (math.log10(x) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def up(y: float) -> float:
        return HEIGHT - BOTTOM - (y - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    best = front(points)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="accuracy against {escape(axis)}">']
    for tick in ticks_y:
        y = up(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:.0f} %</text>')
    for tick in ticks_x:
        x = across(tick)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tick:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(axis)}</text>')
    path = " ".join(f"{across(p.x):.1f},{up(p.y):.1f}" for p in best)
    parts.append(f'<polyline class="front" points="{path}"/>')
    for p in points:
        x, kind = across(p.x), "best" if p in best else "other"
        parts.append(f'<g class="{kind}"><title>{escape(p.label)}: {100 * p.y:.1f} %, {p.x:.4g}</title>')
        parts.append(f'<line class="interval" x1="{x:.1f}" x2="{x:.1f}" y1="{up(p.low):.1f}" y2="{up(p.high):.1f}"/>')
        parts.append(f'<circle cx="{x:.1f}" cy="{up(p.y):.1f}" r="5"/></g>')
    parts += _labels([(across(p.x), up(p.y), p.label) for p in points])
    return "\n".join([*parts, "</svg>"])


def decades(values: Sequence[float]) -> list[float]:
    """1, 2, 5, 10 ... around positive values: at least two."""
    marks = [m * 10.0**e for e in range(-9, 13) for m in (1, 2, 5)]
    low = max(m for m in marks if m <= min(values))
    high = min(m for m in marks if m >= max(values) and m > low)
    return [m for m in marks if low <= m <= high]


def steps(low: Sequence[float], high: Sequence[float]) -> list[float]:
    """Tenths around shares."""
    first, last = math.floor(10 * min(low)), math.ceil(10 * max(high))
    return [i / 10 for i in range(first, max(last, first + 1) + 1)]


def _labels(places: list[tuple[float, float, str]]) -> list[str]:
    """Beside their points, on the side that has room, below each other where they would overlap."""
    parts = []
    taken: list[tuple[float, float]] = []
    for x, y, label in sorted(places, key=lambda place: place[1]):
        after = x < WIDTH * 0.6
        at = y - 8
        while any(abs(at - other) < 12 and abs(x - where) < 150 for where, other in taken):
            at += 12
        taken.append((x, at))
        anchor, shift = ("start", 8) if after else ("end", -8)
        parts.append(
            f'<text class="label" x="{x + shift:.1f}" y="{at:.1f}" text-anchor="{anchor}">{escape(label)}</text>'
        )
    return parts
