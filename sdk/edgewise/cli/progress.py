"""sdk, cli: progress bars on stderr; silent where nobody watches, or where rich is not installed."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgewise.writer import Progress as Callback


@contextmanager
def bars() -> "Iterator[Callback | None]":
    """A bar for each stage of the work, one below the other; what follows a colon in its name may change."""
    if not sys.stderr.isatty():
        yield None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining
    except ModuleNotFoundError:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        tasks = {}

        def update(stage: str, done: int, total: int) -> None:
            name = stage.partition(":")[0]
            if name not in tasks:
                tasks[name] = display.add_task(stage, total=total)
            display.update(tasks[name], description=stage, completed=done, total=total)

        yield update
