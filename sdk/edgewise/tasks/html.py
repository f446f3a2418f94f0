"""sdk, tasks: evaluations as one page that needs nothing else: tables, plots, and some of the texts."""

from collections.abc import Callable, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from edgewise.tasks.compare import compare
from edgewise.tasks.markdown import cost, label, paired, quality, remarks
from edgewise.tasks.plot import Point, scatter
from edgewise.tasks.result import Evaluation, Item

SAMPLES = 6  # texts of each
AXES: dict[str, Callable[[Evaluation], float | None]] = {
    "tokens": lambda e: float(e.efficiency.tokens),
    "seconds": lambda e: e.efficiency.seconds,
    "joules": lambda e: e.efficiency.energy.joules,
}


def page(evaluations: Sequence[Evaluation]) -> str:
    """HTML; what models said is text in it, whatever it is."""
    first, *others = evaluations
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(
        files("edgewise.tasks").joinpath("report.html.jinja").read_text("utf-8")
    )
    return template.render(
        title=first.tasks,
        remarks=remarks(evaluations),
        plots=[Markup(plot) for plot in _plots(evaluations)],
        heads=[label(each) for each in evaluations],
        tables=[("Quality", quality(evaluations)), ("What it takes", cost(evaluations))],
        pairs=[
            paired(label(other), label(first), compare(other, first))
            for other in others
            if other.tasks_blake3 == first.tasks_blake3 and first.accuracy and other.accuracy
        ],
        samples=[(label(each), _samples(each)) for each in evaluations],
    )


def _plots(evaluations: Sequence[Evaluation]) -> list[str]:
    """One for each axis that all have a figure on, and that is not 0."""
    judged = [each for each in evaluations if each.accuracy and each.items]
    plots = []
    for axis, of in AXES.items():
        totals = [of(each) for each in judged]
        if judged and all(totals):
            points = [_point(each, total or 0.0) for each, total in zip(judged, totals, strict=True)]
            plots.append(scatter(points, axis=f"{axis} per task"))
    return plots


def _point(evaluation: Evaluation, total: float) -> Point:
    accuracy = evaluation.accuracy
    assert accuracy
    low = accuracy.value if accuracy.low is None else accuracy.low
    high = accuracy.value if accuracy.high is None else accuracy.high
    return Point(total / len(evaluation.items), accuracy.value, low, high, evaluation.method)


def _samples(evaluation: Evaluation) -> list[Item]:
    """Some that are wrong and some that are right, in the order of the tasks."""
    said = [item for item in evaluation.items if item.text and not item.variant]
    wrong = [item for item in said if item.right < 1][: SAMPLES // 2]
    right = [item for item in said if item.right == 1][: SAMPLES - len(wrong)]
    return sorted([*wrong, *right], key=said.index)
