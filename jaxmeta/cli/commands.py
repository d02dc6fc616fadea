"""What the commands do: a thin face over training, evaluation and the folder of a run."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxmeta.algorithms.settings import parse_settings
from jaxmeta.cli import options as verbs
from jaxmeta.core import compilation_cache
from jaxmeta.core.errors import require
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.reporting import catalogue, cells, comparison, inspection, plots, progress, tables, timings
from jaxmeta.reporting import html as report
from jaxmeta.training import distributed as hosts
from jaxmeta.training import jobs, pretrained
from jaxmeta.training import loop as training
from jaxmeta.training import seeds as populations
from jaxmeta.training.run_directory import (
    RunDirectory,
    default_run_dir,
    require_possible,
    require_writable_folder,
    write_json,
    write_text,
)

WAYS = ("log_every", "checkpoint_every", "keep", "devices", "on_nonfinite", "on_write_error", "allow_import")
"""How a run is trained, as `train`'s options and `jobs.prepare` alike name it."""
WIDTH = 200
"""Of a table in a file or a pipe, in characters."""


def run(options: Any) -> None:
    """Does what one of the dataclasses in `jaxmeta.cli.options` asks for."""
    with _plain_warnings(options.traceback):
        if isinstance(options, verbs.Train):
            hosts.join(options.coordinator, options.num_processes, options.process_id)
        if hasattr(options, "compilation_cache") and not getattr(options, "plan", False):
            compilation_cache.use_compilation_cache(options.compilation_cache)
        with timings.told(_console(stderr=True)) if getattr(options, "timings", False) else contextlib.nullcontext():
            COMMANDS[type(options)](options)


def list_names(options: verbs.List) -> None:
    """Prints all names, or what there is to set or to know of one."""
    if options.name is None:
        catalogue.show_names(_results())
    else:
        catalogue.show_entry(_results(), options.name)


def train(options: verbs.Train) -> None:
    """Trains, shows the way there, and evaluates."""
    given = _configuration(options)
    for name in WAYS:
        given[name] = getattr(options, name)
    for name in ("evaluate", "baselines"):
        given[name] = verbs.choice(options, name)
    if options.run_dir is None:
        unplaced = jobs.prepare(**given)
        given |= {"run_dir": default_run_dir(unplaced.config), "tasks": unplaced.tasks}
    else:
        given |= {"run_dir": options.run_dir}
    job = jobs.prepare(**given, resume=options.resume)
    run, config = RunDirectory(Path(given["run_dir"])), job.config
    console = _console(stderr=True, quiet=not hosts.is_first())
    _tell(
        console, f"Training {config['recipe']} on {config['tasks']} with {populations.described(config)}, in {run.path}"
    )
    timings.begin("training")
    with progress.reporting(config["meta_steps"], console) as on_log:
        state = training.run_job(job, on_log)
    if not hosts.is_first():
        return
    timings.begin("writing and showing")
    if metrics := run.read_metrics():
        plots.plot_training(metrics, run.picture("training"))
    if hosts.are_several():  # whose others would wait in vain
        _tell(console, f"Trained; `jaxmeta evaluate {run.path}` on one host evaluates it.")
    elif config["evaluate"]:
        _evaluate(console, run, (job.learner, state, job.tasks, config), with_baselines=config["baselines"])


def evaluate(options: verbs.Evaluate) -> None:
    """Evaluates a trained run, and leaves the results there; or a pretrained learner."""
    json_file = _file("--json", options.json)
    if options.run_dir is not None:
        restored = jobs.restore(options.run_dir, best=options.best, allow_import=options.allow_import)
        run = RunDirectory(Path(options.run_dir))
        run.require_writable()
    else:
        restored, run = pretrained.load(options.pretrained or ""), None
    wanted = verbs.choice(options, "baselines")
    if wanted is None:  # of a run what it was trained with, of a pretrained learner only by wish
        wanted = options.retune or (run is not None and restored[3].get("baselines", True))
    _evaluate(
        _console(stderr=True),
        run,
        restored,
        json_file,
        best=options.best,
        split=options.split,
        num_tasks=options.num_tasks,
        seed=options.seed,
        with_baselines=wanted,
        retune=options.retune,
    )


def compare(options: verbs.Compare) -> None:
    """Puts evaluated runs and scoreboards side by side."""
    json_file = _file("--json", options.json)
    found, missing = _cells("compare", options.folders)
    rows = comparison.rows(found)
    if json_file:
        write_json(json_file, {"rows": rows, "missing": missing})
    tables.show_comparison(_results(), rows, missing)


def write_report(options: verbs.Report) -> None:
    """Writes evaluated runs and scoreboards as a page."""
    page, table = _file("--out", options.out), _file("--markdown", options.markdown)
    picture = _file("--picture", options.picture)
    assert page is not None
    files = [str(path) for path in (page, table, picture) if path]
    require(len(set(map(os.path.realpath, files))) == len(files), "--out, --markdown and --picture", "differ", files)
    if picture:
        kinds = sorted(plots.file_kinds())
        require(picture.suffix[1:] in kinds, "--picture", f"end in one of {', '.join(kinds)}", options.picture)
    found, missing = _cells("report", options.folders)
    rows = comparison.rows(found)
    report.write_html(page, rows, missing)
    if table:
        write_text(table, report.markdown(rows, missing))
    if picture:
        plots.plot_scores(rows, picture)
    for sentence in missing:
        _tell(_console(stderr=True), sentence.rstrip("."))
    print(page)


def _cells(verb: str, folders: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    require(len(folders) > 0, f"jaxmeta {verb}", "be given at least one folder", "none")
    return cells.load_all(folders)


def inspect(options: verbs.Inspect) -> None:
    """Prints what a run is, how far it got and what it costs, or what one would need that is only planned."""
    json_file, console = _file("--json", options.json), _console(stderr=True)
    if options.run_dir is None:
        job = jobs.prepare(**_configuration(options))

        def on_stage(stage: str) -> None:
            _tell(console, f"Planning: {stage}")

        content = inspection.plan(job, on_stage) | inspection.plan_evaluation(job, on_stage)
        show = tables.show_plan
    else:
        content = inspection.inspect_run(
            options.run_dir, options.allow_import, lambda stage: _tell(console, f"Inspecting: {stage}")
        )
        show = tables.show_inspection
    if json_file:
        write_json(json_file, content)
    show(_results(), content)


COMMANDS = {
    verbs.List: list_names,
    verbs.Train: train,
    verbs.Evaluate: evaluate,
    verbs.Compare: compare,
    verbs.Report: write_report,
    verbs.Inspect: inspect,
}


@contextlib.contextmanager
def _plain_warnings(tracebacks: bool) -> Iterator[None]:
    """Shows what this library logs as bare sentences on stderr, whatever other libraries have set up.

    Of a save that failed, which is told in one sentence, Orbax logs a traceback, and what still reports to its event
    loop prints one each.
    """
    orbax, unraisable = logging.getLogger("absl"), sys.unraisablehook
    loudness = orbax.level
    if not tracebacks:
        orbax.setLevel(logging.CRITICAL)
        sys.unraisablehook = lambda event: None if str(event.exc_value) == "Event loop is closed" else unraisable(event)
    logger, handler = logging.getLogger("jaxmeta"), logging.StreamHandler()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        orbax.setLevel(loudness)
        sys.unraisablehook = unraisable
        logger.removeHandler(handler)
        logger.propagate = propagates


def _configuration(options: verbs.Configuration) -> dict[str, Any]:
    """What `jobs.prepare` takes of it."""
    sweep = verbs.read_sweep(options)
    return {
        "recipe": options.recipe,
        "tasks": options.tasks,
        "seed": options.seed,
        "seeds": None if options.seeds is None else populations.parse_seeds(options.seeds),
        "sweep": None if sweep is None else populations.parse_sweep(sweep),
        "settings": parse_settings(verbs.read_settings(options)),
    }


def _evaluate(
    console: Console,
    run: RunDirectory | None,
    restored: tuple,
    json_file: Path | None = None,
    best: bool = False,
    **how: Any,
) -> None:
    """Evaluates, and leaves numbers and a picture in the run's folder, if there is one; `best` is the checkpoint's.

    Files come before the table, which a closed pipe may refuse.
    """
    with progress.evaluating(console) as tell:

        def on_stage(stage: str, done: float) -> None:
            timings.begin(stage)
            tell(stage, done)

        content = evaluation.evaluate(*restored, **how, on_stage=on_stage)
    timings.begin("writing and showing")
    content["best"] = best
    if run is not None:
        write_json(run.evaluation, content)
        plots.plot_adaptation(content, run.picture("adaptation"))
    if json_file:
        write_json(json_file, content)
    tables.show_evaluation(_results(), content)


def _file(option: str, name: str | None) -> Path | None:
    """Refuses, before any work is done, a file that could not be written afterwards."""
    if name is None:
        return None
    path = Path(name)
    require_possible(option, path)
    replaceable = path.parent.is_dir() and (path.is_file() or not path.exists())  # no folder, and no device
    require(replaceable, option, "be a file in a folder that exists", name)
    require_writable_folder(option, "be a file in a folder that can be written to", path.parent, name)
    return path


def _results() -> Console:
    """Standard output; where that is no terminal, wide enough that no number is cut off."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a path need not be text
    console = _console()
    return console if console.is_terminal else _console(width=WIDTH)


class _Console(Console):
    """A console that leaves it to `cli.main` to end where nobody reads the output any more."""

    def on_broken_pipe(self) -> None:
        raise  # the error that rich handles as it calls this


def _console(**options: Any) -> Console:
    """A console that prints names as they are, also those that look like markup."""
    return _Console(markup=False, emoji=False, **options)


def _tell(console: Console, sentence: str) -> None:
    console.print(sentence + ".", soft_wrap=True, markup=False, highlight=False)
