"""What the commands do: a thin face over training, evaluation and the folder of a run."""

import contextlib
import io
import logging
import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxmeta.cli import config_file
from jaxmeta.cli import options as verbs
from jaxmeta.core import compilation_cache, synonyms
from jaxmeta.core.errors import NONE, UsageError, Words, require
from jaxmeta.core.settings import Text, flattened
from jaxmeta.reporting import (
    animation,
    catalogue,
    comparison,
    inspection,
    looks,
    plots,
    pooling,
    progress,
    tables,
    timings,
)
from jaxmeta.reporting import html as report
from jaxmeta.reporting import run as runs
from jaxmeta.reporting.run import Run
from jaxmeta.training import distributed as hosts
from jaxmeta.training import jobs, loggers
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.loop import Hooks
from jaxmeta.training.run_directory import (
    RunDirectory,
    default_run_dir,
    require_possible,
    require_writable_folder,
    write_json,
    write_text,
)

WAYS = ("log_every", "checkpoint_every", "evaluate_every", "keep", "devices", "on_nonfinite", "on_write_error")
"""How a run is trained, as `train`'s options and `jobs.prepare` alike name it."""
WIDTH = 200
"""Of a table in a file or a pipe, in characters."""


def run(verb: str, options: Namespace) -> None:
    """Runs a command."""
    with _plain_warnings(options.traceback):
        if verb == "train":
            hosts.join(options.coordinator, options.num_processes, options.process_id)
        if hasattr(options, "no_compilation_cache") and not getattr(options, "plan", False):
            compilation_cache.use_compilation_cache(not options.no_compilation_cache)
        with (
            timings.reported(_console(stderr=True)) if getattr(options, "timings", False) else contextlib.nullcontext()
        ):
            try:
                COMMANDS[verb](options)
            except UsageError as error:
                if (flag := _option_meant(verb, error)) is None:
                    raise
                raise UsageError(error.name, error.rule, error.value, hint=f"Did you mean {flag!r}?") from None


def _option_meant(verb: str, error: UsageError) -> str | None:
    """The option that was given as a setting, if one was."""
    flag = f"--{str(error.value).replace('_', '-')}"
    named = error.name == "setting" and error.value not in synonyms.SETTINGS
    return flag if named and flag in verbs.parser_of(verb).flags() else None


def list_names(options: Namespace) -> None:
    """Prints all names, or what there is to set or to know of one."""
    if options.name is None:
        catalogue.show_names(_results())
    else:
        catalogue.show_entry(_results(), options.name)


def train(options: Namespace) -> None:
    """Trains, shows the way there, and evaluates."""
    arguments, given = _configuration(options)
    given |= {name: value for name in WAYS if (value := getattr(options, name)) is not None}
    choices = {name: verbs.choice(options, name) for name in ("evaluate", "baselines")}
    given |= {name: wanted for name, wanted in choices.items() if wanted is not None}
    given |= {"resume": options.resume, "allow_import": options.allow_import}
    if options.resume or options.run_dir is not None:
        job = jobs.prepare(*arguments, **given, run_dir=options.run_dir or default_run_dir(_named(arguments, given)))
    else:
        job = jobs.prepare(*arguments, **given)
        job = job.kept_in(default_run_dir(job.config))
    assert job.run is not None
    config, console = job.config, _console(stderr=True, quiet=not hosts.is_first())
    whose = multi_seed.described(config)
    _tell(console, f"Training {config['algorithm']} on {config['tasks']} with {whose}, in {job.run.path}")
    timings.begin("training")
    with loggers.logging_to(options.log if hosts.is_first() else None, config, job.run.path.name) as on_log:
        trained = runs.run_job(job, Hooks(on_log=on_log), console)
    if not hosts.is_first():
        return
    timings.begin("writing and showing")
    if trained.log:
        trained.plot(job.run.picture("training"))
    if hosts.are_several():  # whose others would wait in vain
        _tell(console, f"Trained; `jaxmeta evaluate {job.run.path}` on one host evaluates it.")
    elif config["evaluate"]:
        _evaluate(console, trained, with_baselines=config["baselines"])


def _named(arguments: tuple[Any, ...], given: dict[str, Any]) -> dict[str, Any]:
    """The configuration that a run of these arguments would have, by which its folder is named."""
    return jobs.prepare(*arguments, **{**given, "resume": False}).config


def evaluate(options: Namespace) -> None:
    """Evaluates a trained run, and leaves the results there; or a pretrained learner."""
    json_file = _file("--json", options.json)
    run = runs.load(options.run, best=options.best, allow_import=options.allow_import)
    for name in ("best", "allow_import") if run.path is None else ():
        if getattr(options, name):
            raise UsageError(
                f"--{name.replace('_', '-')}", "be given with RUN_DIR", Words(f"PRETRAINED {options.run!r}")
            )
    if run.path is not None:
        RunDirectory(run.path).require_writable()
    wanted = verbs.choice(options, "baselines")
    if wanted is None:  # of a run what it was trained with, of a pretrained learner only by wish
        wanted = options.retune or (run.path is not None and run.config.get("baselines", True))
    _evaluate(
        _console(stderr=True),
        run,
        json_file,
        best=options.best,
        split=options.split,
        num_tasks=options.num_tasks,
        seed=options.seed,
        with_baselines=wanted,
        retune=options.retune,
    )


def compare(options: Namespace) -> None:
    """Puts evaluated runs and scoreboards side by side."""
    json_file = _file("--json", options.json)
    found, missing = _cells("compare", options.folders)
    rows = comparison.rows(found)
    if json_file:
        write_json(json_file, {"rows": rows, "missing": missing})
    tables.show_comparison(_results(), rows, missing)


def write_report(options: Namespace) -> None:
    """Writes evaluated runs and scoreboards as a page."""
    require(options.out is not None, "--out", "be given a value", NONE)
    page, table = _file("--out", options.out), _file("--markdown", options.markdown)
    picture = _file("--picture", options.picture)
    assert page is not None
    files = [str(path) for path in (page, table, picture) if path]
    require(len(set(map(os.path.realpath, files))) == len(files), "--out, --markdown and --picture", "differ", files)
    if picture:
        kinds = sorted(looks.file_kinds())
        require(picture.suffix[1:] in kinds, "--picture", f"end in one of {', '.join(kinds)}", options.picture)
    found, missing = _cells("report", options.folders)
    with progress.bar(_console(stderr=True), f"Writing {page}") as on_share:
        rows = comparison.rows(found, lambda share: on_share(share / 2))
        report.write_html(page, rows, missing, lambda share: on_share((1 + share) / 2))
    if table:
        write_text(table, report.markdown(rows, missing))
    if picture:
        plots.plot_scores(rows, picture)
    for sentence in missing:
        _tell(_console(stderr=True), sentence.rstrip("."))
    print(page)


def _cells(verb: str, folders: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    require(len(folders) > 0, f"jaxmeta {verb}", "be given at least one folder", "none")
    return pooling.load_all(folders)


def inspect(options: Namespace) -> None:
    """Prints what a run is, how far it got and what it costs, or what one would need that is only planned."""
    json_file, console = _file("--json", options.json), _console(stderr=True)
    if options.run is None:
        arguments, given = _configuration(options)
        job = jobs.prepare(*arguments, **given)

        def on_stage(stage: str) -> None:
            _tell(console, f"Planning: {stage}")

        content = inspection.plan(job, on_stage) | inspection.plan_evaluation(job, on_stage)
        show = tables.show_plan
    else:
        content = inspection.inspect_run(
            options.run, options.allow_import, lambda stage: _tell(console, f"Inspecting: {stage}")
        )
        show = tables.show_inspection
    if json_file:
        write_json(json_file, content)
    show(_results(), content)


def show(options: Namespace) -> None:
    """Animates a lifetime of a run or a pretrained learner in one task."""
    require(options.out is not None, "--out", "be given a value", NONE)
    out, console = _file("--out", options.out), _console(stderr=True)
    assert out is not None
    animation.require_kind(out)
    run = runs.load(options.run, best=options.best, allow_import=options.allow_import)
    with progress.bar(console, f"Drawing {out}") as on_share:
        run.show(out, task=options.task, split=options.split, member=options.member, on_share=on_share)
    print(out)


def export(options: Namespace) -> None:
    """Writes a trained learner with its card."""
    require(options.out is not None, "--out", "be given a value", NONE)
    out = Path(options.out)
    if out.suffix == ".zip":
        _file("--out", options.out)
    else:
        require_possible("--out", out)
        require(not out.exists(), "--out", "be a new folder, or end in .zip", options.out)
    run = runs.load(options.run, best=options.best, allow_import=options.allow_import)
    print(run.export(out, member=options.member))


COMMANDS = {
    "list": list_names,
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "report": write_report,
    "inspect": inspect,
    "show": show,
    "export": export,
}


@contextlib.contextmanager
def _plain_warnings(tracebacks: bool) -> Iterator[None]:
    """Shows what this library logs as bare sentences on stderr, whatever other libraries have set up.

    A failed save is one sentence, but Orbax logs a traceback for it, and so do callbacks of its closed event loop.
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


def _configuration(options: Namespace) -> tuple[tuple[Any, Any, dict[str, Any]], dict[str, Any]]:
    """What `jobs.prepare` takes of it: algorithm, tasks and settings, and further options. A file comes first."""
    filed = config_file.read(Path(options.config)) if options.config else {}
    settings = flattened(filed.pop("settings", {}))
    pairs = verbs.read_pairs("--set", "key=value", options.set)
    flags = verbs.parser_of("train").flags()
    for name in pairs.keys() - {"agent", "meta_steps"}:
        if (flag := f"--{name.replace('_', '-')}") in flags:
            raise UsageError("--set", "name a setting", name, hint=f"Did you mean {flag!r}?")
    if options.agent is not None:
        require("agent" not in pairs, "--set", "name a setting once", Words("'agent' twice"))
        pairs["agent"] = options.agent
    settings |= {name: Text(text) for name, text in pairs.items()}
    arguments = (options.algorithm or filed.pop("algorithm", None), options.tasks or filed.pop("tasks", None), settings)
    given = {name: value for name, value in filed.items() if name not in ("algorithm", "tasks")}
    if options.seed is not None or options.seeds is not None:
        given = {name: value for name, value in given.items() if name not in ("seed", "seeds")}
    if "seeds" in given:
        given.pop("seed", None)
    own = {"seed": options.seed, "meta_steps": options.meta_steps}
    own["seeds"] = None if options.seeds is None else multi_seed.parse_seeds(options.seeds)
    sweep = verbs.read_pairs("--sweep", "key=value,value", options.sweep)
    own["sweep"] = multi_seed.parse_sweep(sweep) if options.sweep is not None else None
    return arguments, given | {name: value for name, value in own.items() if value is not None}


def _evaluate(console: Console, run: Run, json_file: Path | None = None, best: bool = False, **how: Any) -> None:
    """Evaluates, and leaves numbers and a picture in the run's folder, if there is one; `best` is the checkpoint's.

    Files come before the table, which a closed pipe may refuse.
    """
    with progress.evaluating(console) as report:

        def on_stage(stage: str, done: float) -> None:
            timings.begin(stage)
            report(stage, done)

        content = runs.evaluate(run, **how, on_stage=on_stage)
    timings.begin("writing and showing")
    content["best"] = best
    runs.keep(run, content)
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
    """A console that leaves a closed pipe to `cli.main`."""

    def on_broken_pipe(self) -> None:
        raise  # the error that rich handles as it calls this


def _console(**options: Any) -> Console:
    """A console that prints names as they are, also those that look like markup."""
    return _Console(markup=False, emoji=False, **options)


def _tell(console: Console, sentence: str) -> None:
    console.print(sentence + ".", soft_wrap=True, markup=False, highlight=False)
