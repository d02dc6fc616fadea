"""Tells how training goes: a bar on a terminal, plain lines anywhere else."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn


@contextlib.contextmanager
def reporting(meta_steps: int, console: Console) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields what `train` calls at each log point.

    Args:
      meta_steps: of the whole run.
      console: where to; the bar needs a terminal.
    """
    if not console.is_terminal:

        def print_line(record: dict[str, Any]) -> None:
            line = f"meta-step {record['meta_step']}/{meta_steps}  {summary(record, meta_steps)}"
            try:
                console.print(line, soft_wrap=True, markup=False, highlight=False)
                console.file.flush()
            except BrokenPipeError:
                raise
            except OSError:
                pass  # a full disk may cost lines, never the run

        yield print_line
        return

    columns = (TextColumn("meta-step"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("compiling", total=meta_steps)

        def move_bar(record: dict[str, Any]) -> None:
            progress.update(bar, completed=record["meta_step"], description=summary(record, meta_steps))

        yield move_bar


OnStage = Callable[[str, float], None]
"""`on_stage(stage, done)`: what an evaluation does now, and which share of the whole is done, from 0 to 1."""


@contextlib.contextmanager
def evaluating(console: Console) -> Iterator[OnStage]:
    """Yields what `evaluate` calls as it goes on: a bar on a terminal, elsewhere a line for each stage.

    Args:
      console: where to.
    """
    if not console.is_terminal:

        def write(line: str) -> None:
            try:
                console.print(line, soft_wrap=True, markup=False, highlight=False)
                console.file.flush()
            except BrokenPipeError:
                raise
            except OSError:
                pass  # a full disk may cost lines, never the run

        yield lines(write)
        return

    left = _time_left()
    columns = (TextColumn("evaluating"), TaskProgressColumn(), BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=1.0)

        def move_bar(stage: str, done: float) -> None:
            progress.update(bar, completed=done, description="  ".join([*left(done), stage]))

        yield move_bar


def lines(write: Callable[[str], None]) -> OnStage:
    """Writes a line when a stage starts: the stage, the share that is done and the time left."""
    left, present = _time_left(), [""]

    def on_stage(stage: str, done: float) -> None:
        if stage != present[0]:
            present[0] = stage
            write("  ".join([f"Evaluating: {stage}", f"{done:.0%} done", *left(done)]))

    return on_stage


def _time_left() -> Callable[[float], list[str]]:
    """Estimates the time left from that passed since this was called; nothing to say at the very beginning."""
    began = time.monotonic()

    def left(done: float) -> list[str]:
        return [f"{duration((time.monotonic() - began) * (1 - done) / done)} left"] if done > 0.02 else []

    return left


def summary(record: dict[str, Any], meta_steps: int) -> str:
    """What a log point says, in one line.

    >>> record = {"meta_step": 50, "env_steps": 50_000, "env_steps_per_second": 500.0, "loss": -0.25, "return": 1.5}
    >>> summary(record, 80)
    'loss -0.25  return 1.5  500 env steps/s  1:00 left'
    """
    parts = [f"{name} {record[name]:.4g}" for name in ("loss", "return") if name in record]
    if speed := record["env_steps_per_second"]:
        env_steps_left = (meta_steps - record["meta_step"]) * record["env_steps"] / record["meta_step"]
        parts += [f"{speed:,.0f} env steps/s", f"{duration(env_steps_left / speed)} left"]
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> duration(59.6), duration(3725)
    ('1:00', '1:02:05')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


@contextlib.contextmanager
def bar(console: Console, title: str) -> Iterator[Callable[[float], None]]:
    """Yields a function of the share that is done, from 0 to 1: a bar on a terminal, nothing elsewhere.

    Args:
      console: where to.
      title: what is done.
    """
    if not console.is_terminal:
        yield lambda share: None
        return
    with Progress(TextColumn(title), TaskProgressColumn(), BarColumn(), console=console, transient=True) as progress:
        work = progress.add_task("", total=1.0)
        yield lambda share: progress.update(work, completed=share)
