"""The plot of pareto.py: divergence by bytes, and by speed; every point has its name, and the front is a line."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
from matplotlib.ticker import LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pareto import Point

SERIES = {  # colour, marker, and where the names stand: points to the right and up, and which end is there
    "unpruned": ("#444444", "s", (6, 4), "left"),
    "pruned, int4": ("#b8651b", "o", (-6, 4), "right"),
    "pruned, distilled, int4": ("#2a6f97", "D", (6, -10), "left"),
}
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
        axes[0, 0].legend(loc="best")
        figure.tight_layout()
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
    axes.margins(x=0.25)
    for name, (colour, marker, offset, end) in SERIES.items():
        own = [point for point in points if point.series == name]
        xs, ys = [of(point) for point in own], [point.found.mean_kld for point in own]
        axes.scatter(xs, ys, c=colour, marker=marker, s=28, label=name, zorder=3)
        for x, y, point in zip(xs, ys, own, strict=True):
            where: Any = {"xytext": offset, "textcoords": "offset points", "ha": end}
            axes.annotate(point.label, (x, y), fontsize=7.5, color=colour, **where)
    best = sorted((point for point in points if point.case.name in front), key=of)
    if best:
        xs, ys = [of(point) for point in best], [point.found.mean_kld for point in best]
        axes.step(xs, ys, where="post", color="#999999", linewidth=1, zorder=1, label="front")


def _plain(value: float, _: object = None) -> str:
    return f"{value:,g}"
