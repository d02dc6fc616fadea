"""Where the time of a command goes: tracing, lowering, compiling, and the rest, stage by stage.

    with timings.reported(console):
        timings.begin("training")
        ...

prints a table at the end. Outside of `reported`, `begin` does nothing.
"""

import contextlib
import time
from collections.abc import Iterator

import jax
from rich.console import Console
from rich.table import Table

KINDS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lowering",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
"""JAX's events, and what a column calls them. A program that comes from the compilation cache counts as compiled, in
the time that it took to read."""


class Stage:
    """How long one stage took, in seconds."""

    def __init__(self, name: str):
        """A stage that starts now."""
        self.name, self.began, self.seconds = name, time.perf_counter(), 0.0
        self.intervals: dict[str, list[tuple[float, float]]] = {column: [] for column in KINDS.values()}

    def note(self, column: str, duration: float) -> None:
        """An event that ends now. What it contains was noted before it, and is not counted twice."""
        end = time.perf_counter()
        intervals = self.intervals[column]
        while intervals and intervals[-1][0] >= end - duration:
            intervals.pop()
        intervals.append((end - duration, end))

    def total(self, column: str) -> float:
        """Seconds of one kind."""
        return sum(end - start for start, end in self.intervals[column])


class _Record:
    """The stages of the command that is timed, the last of which goes on."""

    def __init__(self):
        self.stages: list[Stage] = []

    def on_event(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if self.stages and event in KINDS:
            self.stages[-1].note(KINDS[event], duration_secs)

    def end(self) -> None:
        if self.stages:
            self.stages[-1].seconds = time.perf_counter() - self.stages[-1].began


_record = _Record()


def begin(name: str) -> None:
    """Ends the current stage of a timed command and starts another, unless it has the same name."""
    if _record.stages and _record.stages[-1].name != name:
        _record.end()
        _record.stages.append(Stage(name))


@contextlib.contextmanager
def reported(console: Console) -> Iterator[None]:
    """Times what is done inside, and prints how long each stage took.

    Args:
      console: where to.
    """
    jax.monitoring.register_event_duration_secs_listener(_record.on_event)
    _record.stages = [Stage("preparing")]
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(_record.on_event)
        _record.end()
        stages, _record.stages = _record.stages, []
        _show(console, stages)


def _show(console: Console, stages: list[Stage]) -> None:
    table = Table("stage, in seconds", *KINDS.values(), "the rest", "all", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = [[*(stage.total(column) for column in KINDS.values()), stage.seconds] for stage in stages]
    for name, row in [
        *((stage.name, row) for stage, row in zip(stages, rows, strict=True)),
        ("all", [sum(column) for column in zip(*rows, strict=True)]),
    ]:
        *known, whole = row
        table.add_row(name, *(f"{seconds:.1f}" for seconds in (*known, max(0.0, whole - sum(known)), whole)))
    console.print(table)
