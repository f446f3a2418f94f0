"""The plot of pareto.py: divergence by bytes, and by speed; every point has its name, and the front is a line."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pareto import Point

SERIES = {  # colour, marker
    "unpruned": ("#444444", "s"),
    "pruned, int4": ("#b8651b", "o"),
    "pruned, distilled, int4": ("#2a6f97", "D"),
}
PLACES = [  # of a name, beside its mark: points to the right and up, and which of its ends is there; the best first
    (reach * x, reach * y, across, along)
    for reach in (1, 1.7, 2.6)
    for x, y, across, along in (
        *((6, 0, "left", "center"), (-6, 0, "right", "center"), (4, 4, "left", "bottom"), (-4, 4, "right", "bottom")),
        *((4, -4, "left", "top"), (-4, -4, "right", "top"), (0, 6, "center", "bottom"), (0, -6, "center", "top")),
    )
]
MARK = 10  # pixels that a mark takes
STYLE: Any = {
    "svg.hashsalt": "edgewise",  # the same points give the same file
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#eeeeee",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def draw(points: "Sequence[Point]", front: Collection[str], path: Path) -> None:
    """Write the plot to `path` with the suffixes .png and .svg. The float model, which is its own reference, has no
    place on a logarithmic axis.
    """
    matplotlib.use("agg")
    from matplotlib import pyplot

    shown = [point for point in points if point.found.mean_kld > 1e-6]
    fast = [point for point in shown if point.pace]
    with pyplot.rc_context(STYLE):
        columns = 2 if fast else 1
        figure, axes = pyplot.subplots(1, columns, figsize=(5.5 * columns, 4.8), sharey=True, squeeze=False)
        _panel(axes[0, 0], shown, front, _megabytes, "megabytes of weights")
        axes[0, 0].set_ylabel("mean KL divergence from the float model, nats a token")
        if fast:
            _panel(axes[0, 1], fast, (), _decoded, "tokens decoded a second")
        axes[0, 0].legend(loc="upper right")
        figure.tight_layout()
        _name(axes[0, 0], shown, _megabytes)
        if fast:
            _name(axes[0, 1], fast, _decoded)
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
        figure.savefig(path.with_suffix(".png"), dpi=150)
        pyplot.close(figure)


def _megabytes(point: "Point") -> float:
    return point.found.bytes / 1e6


def _decoded(point: "Point") -> float:
    return point.pace.decode if point.pace else 0.0


def _panel(
    axes: "Axes", points: "Sequence[Point]", front: Collection[str], of: "Callable[[Point], float]", label: str
) -> None:
    axes.set_xlabel(label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(_plain)
    axes.yaxis.set_major_formatter(_plain)
    axes.margins(x=0.35)
    for name, (colour, marker) in SERIES.items():
        own = [point for point in points if point.series == name]
        xs, ys = [of(point) for point in own], [point.found.mean_kld for point in own]
        axes.scatter(xs, ys, c=colour, marker=marker, s=28, label=name, zorder=3)
    best = sorted((point for point in points if point.case.name in front), key=of)
    if best:
        xs, ys = [of(point) for point in best], [point.found.mean_kld for point in best]
        axes.step(xs, ys, where="post", color="#999999", linewidth=1, zorder=1, label="front")


def _name(axes: "Axes", points: "Sequence[Point]", of: "Callable[[Point], float]") -> None:
    """Write each name where it covers no mark, no other name, and nothing beyond the axes."""
    spots = [axes.transData.transform((of(point), point.found.mean_kld)) for point in points]
    taken = [Bbox.from_bounds(x - MARK / 2, y - MARK / 2, MARK, MARK) for x, y in spots]
    legend = axes.get_legend()
    if legend:
        taken.append(legend.get_window_extent())
    inside = axes.get_window_extent()
    for point in points:
        tried: list[tuple[int, int, Any, Bbox]] = []
        for x, y, across, along in PLACES:
            where: Any = {"xytext": (x, y), "textcoords": "offset points", "ha": across, "va": along, "zorder": 4}
            colour = SERIES[point.series][0]
            name = axes.annotate(point.label, (of(point), point.found.mean_kld), fontsize=7.5, color=colour, **where)
            box = name.get_window_extent()
            covered = sum(box.overlaps(other) for other in taken) + (box.x0 < inside.x0) + (box.x1 > inside.x1)
            tried.append((covered, len(tried), name, box))
            if not covered:
                break
        _, _, best, box = min(tried, key=lambda each: each[:2])
        taken.append(box)
        for _, _, name, _ in tried:
            if name is not best:
                name.remove()


def _plain(value: float, _: object = None) -> str:
    return f"{value:,g}"
