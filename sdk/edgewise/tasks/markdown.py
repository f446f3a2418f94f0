"""sdk, tasks: evaluations as Markdown: figures side by side, what each took, and the differences in pairs."""

from collections.abc import Iterable, Sequence

from edgewise.tasks.compare import Paired, compare
from edgewise.tasks.metrics import Figure
from edgewise.tasks.result import Evaluation

Row = Sequence[str]


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """All of them, one to a column of each table; each is compared to the first."""
    first, *others = evaluations
    heads = ["", *(label(each) for each in evaluations)]
    parts = [
        f"# {first.tasks}",
        "",
        *_table(heads, quality(evaluations)),
        "",
        *_table(heads, cost(evaluations)),
        "",
        *remarks(evaluations),
    ]
    for other in others:
        if other.tasks_blake3 == first.tasks_blake3 and first.accuracy and other.accuracy:
            parts += ["", paired(label(other), label(first), compare(other, first))]
    return "\n".join(parts) + "\n"


def label(evaluation: Evaluation) -> str:
    return f"{evaluation.bundle}, {evaluation.method}"


def quality(evaluations: Sequence[Evaluation]) -> list[Row]:
    """A row for each figure that any of them has."""
    names = dict.fromkeys(name for each in evaluations for name in each.figures)
    return [[name, *(shown(each.figures.get(name), percent=_is_share(name)) for each in evaluations)] for name in names]


def cost(evaluations: Sequence[Evaluation]) -> list[Row]:
    """What answering took; the headline is last."""
    found = [each.efficiency for each in evaluations]
    rows: list[Row] = [
        ["seconds, of all", *(f"{e.seconds:.2f}" for e in found)],
        ["new tokens", *(f"{e.tokens:,}" for e in found)],
        ["tokens/s", *(f"{e.tokens_per_s:.0f}" for e in found)],
        ["latency, ms (median)", *(_ms(e.latency_s) for e in found)],
        ["first token, ms (median)", *(_ms(e.first_token_s) for e in found)],
        *(
            [f"between tokens, ms ({p})", *(_ms_of(e.between_tokens_s.get(p)) for e in found)]
            for p in ("p50", "p95", "p99")
        ),
        ["peak memory, MB", *(_megabytes(e.peak_memory_bytes) for e in found)],
        ["energy, J", *(f"{e.energy.joules:.3g}" if e.energy.joules is not None else "-" for e in found)],
        ["tokens per right answer", *(_maybe(e.tokens_per_right) for e in found)],
        ["seconds per right answer", *(_maybe(e.seconds_per_right) for e in found)],
        ["joules per right answer", *(_maybe(e.joules_per_right) for e in found)],
        ["cost per right answer", *(_maybe(e.cost_per_right) for e in found)],
    ]
    return [row for row in rows if any(cell != "-" for cell in row[1:])]


def remarks(evaluations: Sequence[Evaluation]) -> list[str]:
    """The machine, and why there is no energy where there is none."""
    host = evaluations[0].host
    reasons = {each.efficiency.energy.reason for each in evaluations if each.efficiency.energy.joules is None}
    return [
        f"{host.processor}, {host.cores} cores; edgewise {host.edgewise}, onnxruntime {host.onnxruntime}; "
        "intervals of 95 %.",
        *(f"No energy: {reason}." for reason in sorted(filter(None, reasons))),
    ]


def paired(first: str, second: str, found: Paired) -> str:
    """One sentence."""
    d = found.difference
    return (
        f"{first} against {second}, task by task: {100 * d.value:+.1f} points "
        f"({100 * (d.low or 0):+.1f} to {100 * (d.high or 0):+.1f}), {found.only_first} tasks solved by the first "
        f"alone and {found.only_second} by the second alone, p = {found.p_value:.3g}."
    )


def shown(figure: Figure | None, *, percent: bool = False) -> str:
    """A value with its interval."""
    if figure is None:
        return "-"
    scale, form = (100, ".1f") if percent else (1, ".4g")
    text = f"{scale * figure.value:{form}}{' %' if percent else ''}"
    if figure.low is None or figure.high is None:
        return text
    return f"{text} ({scale * figure.low:{form}} to {scale * figure.high:{form}})"


def _is_share(name: str) -> bool:
    return name.startswith(("accuracy", "answered", "drop", "pass@", "token F1", "calibration"))


def _table(heads: Row, rows: Iterable[Row]) -> list[str]:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _ms(figure: Figure | None) -> str:
    return "-" if figure is None else _ms_of(figure.value)


def _ms_of(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.3g}"


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.0f}"


def _maybe(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
