"""The command line: what can be asked, and how a mistake is told.

Nothing here imports JAX, so that help and mistakes are answered at once; `jaxmeta.commands` does the work.
"""

import contextlib
import dataclasses
import io
import itertools
import math
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from jaxmeta import interrupts
from jaxmeta.errors import UsageError, require_known

REWORDED = (
    (r"^Error parsing (\S+): ", r"\1 "),
    (r"^Missing value for argument '(\S+)'.*", r"\1 must be given a value, got none."),
    (r"^Missing from (.+?): (\S+) .*", r"\1 must be given \2, got none."),
)
"""What tyro says, and how this library says it: the argument, the rule, the value."""

USAGE_STATUS, FAILURE_STATUS, INTERRUPT_STATUS = 2, 1, 130


def _integer(low: int, high: float = math.inf) -> PrimitiveConstructorSpec:
    """Reads an integer of a range, and says in one sentence what is wrong with anything else."""
    rule = f"must be an integer of at least {low}" if high == math.inf else f"must be an integer from {low} to {high}"

    def read(words: list[str]) -> int:
        with contextlib.suppress(ValueError):
            value = int(words[0])
            if low <= value <= high:
                return value
        raise ValueError(f"{rule}, got {words[0]!r}.")

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=read,
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


Positive = Annotated[int | None, _integer(1)]
Seed = Annotated[int | None, _integer(0, 2**31 - 1)]
Text = Annotated[str | None, arg(metavar="NAME")]
JsonFile = Annotated[str | None, arg(metavar="FILE")]
OptionalRunDir = Annotated[Positional[str | None], arg(metavar="[RUN_DIR]")]
Folders = Annotated[Positional[tuple[str, ...]], arg(metavar="DIR ...")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
ALLOW_IMPORT = "Import the recipe or the tasks of a run that name a package.module:name; it runs that code."
Cache = Annotated[bool, arg(help="Keep compiled programs for the next time, in the user's cache folder.")]


def _option(text: str, default: Any = dataclasses.MISSING) -> Any:
    """A field with its help. Tyro would else read that out of the source, by a parser that other threads can break."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class List:
    """Recipes and task distributions, one line each."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is trained, on what, and how."""

    recipe: Text = _option("A name that `jaxmeta list` shows; maml if not given.", None)
    tasks: Annotated[str | None, arg(metavar="SPEC")] = _option(
        "NAME or NAME:key=value,key=value; grid_navi if not given.", None
    )
    agent: Text = _option("actor_critic, dqn or tabular_q; what suits the recipe and the tasks if not given.", None)
    seed: Seed = _option("Of everything random; 0 if not given.", None)
    seeds: Annotated[str | None, arg(metavar="SEEDS")] = _option(
        "In place of --seed several, 0-7 or 0,3,5, trained in one program.", None
    )
    sweep: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(metavar="KEY=VALUE,VALUE ...")] = _option(
        "Traced hyper-parameters of which each value is trained with each seed, in the same program.", ()
    )
    meta_steps: Positive = _option("Meta-steps of the whole run; the recipe's own number if not given.", None)
    settings: Annotated[UseAppendAction[tuple[tuple[str, ...], ...]], arg(name="set", metavar="KEY=VALUE ...")] = (
        _option("The recipe's settings; config.json of a run lists them all.", ())
    )


@dataclass(frozen=True, kw_only=True)
class Train(Configuration):
    """Meta-trains a recipe, then evaluates it. Without options: MAML over DQN on grid_navi."""

    run_dir: Annotated[str | None, arg(metavar="DIR")] = _option(
        "A new or empty folder; runs/RECIPE-AGENT-TASKS-seedSEED if not given.", None
    )
    resume: Flag = _option("Go on from the newest checkpoint of a run; what is not given is taken from it.", False)
    allow_import: Flag = _option(f"With --resume: {ALLOW_IMPORT}", False)
    log_every: Positive = _option("Meta-steps between log points; a hundredth of the run if not given.", None)
    checkpoint_every: Positive = _option("Meta-steps between checkpoints; five log points if not given.", None)
    keep: Positive = _option("How many of the newest checkpoints stay, beside the best; 3 if not given.", None)
    devices: Positive = _option("How many the tasks of a batch are spread over; all if not given.", None)
    on_nonfinite: Text = _option("Where numbers are not finite: stop, or skip the meta-step; stop if not given.", None)
    on_write_error: Text = _option("Where a disk is full: continue, or stop; continue if not given.", None)
    coordinator: Annotated[str | None, arg(metavar="HOST:PORT")] = _option(
        "Of several processes, where the first one listens; not needed on Slurm and TPU pods.", None
    )
    num_processes: Positive = _option("How many processes train this run together.", None)
    process_id: Seed = _option("Which of them this one is, from 0.", None)
    evaluate: bool = _option("Evaluate on test tasks after training.", True)
    compilation_cache: Cache = True


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Adapts a trained run, or a pretrained learner, to tasks of a split, beside baselines."""

    run_dir: OptionalRunDir = _option("The folder of a run.", None)
    pretrained: Text = _option("Instead of a run, one of the trained learners that `jaxmeta list` shows.", None)
    split: str = _option("Whose tasks: train, validation, test or shifted.", "test")
    num_tasks: Annotated[int, _integer(2)] = _option("How many tasks.", 128)
    seed: Annotated[int, _integer(0, 2**31 - 1)] = _option("Of the tasks and of all randomness.", 0)
    baselines: Flag = _option("Of a pretrained learner too tune and measure scratch and finetune, for minutes.", False)
    best: Flag = _option("Take the checkpoint with the highest return while training, instead of the newest.", False)
    json: JsonFile = _option("Also write the evaluation here.", None)
    allow_import: Flag = _option(ALLOW_IMPORT, False)
    compilation_cache: Cache = True


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Puts evaluated runs and scoreboards side by side; runs that differ by their seed alone are pooled."""

    folders: Folders = _option("Folders of runs that were evaluated, or of scoreboards.")
    json: JsonFile = _option("Also write the rows here.", None)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Writes evaluated runs and scoreboards as a page that needs nothing but itself: tables that sort, and figures."""

    folders: Folders = _option("Folders of runs that were evaluated, or of scoreboards.")
    out: Annotated[str, arg(metavar="FILE.html")] = _option("Where to write the page.")
    markdown: Annotated[str | None, arg(metavar="FILE.md")] = _option("Also write the overview as a table here.", None)
    picture: Annotated[str | None, arg(metavar="FILE.png")] = _option("Also draw the overview here.", None)


@dataclass(frozen=True, kw_only=True)
class Inspect(Configuration):
    """What a run is, how far it got, which of its checkpoints verify, and what it costs; or what one would need."""

    run_dir: OptionalRunDir = _option("The folder of a run.", None)
    plan: Flag = _option(
        "Instead of a run, what the configuration above would need: compiles it and times a few meta-steps.", False
    )
    json: JsonFile = _option("Also write it here, with all settings.", None)
    allow_import: Flag = _option(ALLOW_IMPORT, False)
    compilation_cache: Cache = True


VERBS: dict[str, type] = {
    "list": List,
    "train": Train,
    "evaluate": Evaluate,
    "compare": Compare,
    "report": Report,
    "inspect": Inspect,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    0: done. 1: it failed. 2: a mistake in what was asked. 130: Ctrl-C or SIGTERM. A failure is one sentence on stderr;
    the environment variable JAXMETA_DEBUG=1 adds where an unexpected one came from.
    """
    try:
        with interrupts.terminable():
            options = parse(sys.argv[1:] if argv is None else argv)
            if options is not None:
                from jaxmeta import commands

                commands.run(options)
        return 0
    except UsageError as error:
        return _fail(USAGE_STATUS, str(error))
    except KeyboardInterrupt as error:
        return _fail(INTERRUPT_STATUS, str(error) or "Interrupted.")
    except Exception as error:
        if os.environ.get("JAXMETA_DEBUG") == "1":
            traceback.print_exc()
        # Our own errors are sentences already; of anybody else's, the kind and the first line.
        told = type(error).__module__.startswith("jaxmeta")
        return _fail(FAILURE_STATUS, str(error) if told else f"{type(error).__name__}: {_first_line(error)}")


def parse(argv: Sequence[str]) -> Any:
    """Reads the command line into one of the dataclasses above; None where help was asked for and given.

    Raises:
      UsageError: one sentence that names the argument, the rule and the value.
    """
    verb, *rest = argv or [""]
    if verb in ("-h", "--help"):
        return _help(lambda: tyro.extras.subcommand_cli_from_dict(VERBS, prog="jaxmeta", args=["--help"]))
    if verb == "--version":
        import jaxmeta

        print(f"jaxmeta {jaxmeta.__version__}")
        return None
    require_known("The command", verb, VERBS)
    program = f"jaxmeta {verb}"
    if "-h" in rest or "--help" in rest:
        return _help(lambda: tyro.cli(VERBS[verb], prog=program, args=["--help"]))

    panel = io.StringIO()
    try:
        with contextlib.redirect_stderr(panel):
            options, unknown = tyro.cli(VERBS[verb], prog=program, args=rest, return_unknown_args=True)
    except SystemExit:
        raise UsageError(_sentence(panel.getvalue())) from None
    if unknown:
        require_known(f"An option of {program}", unknown[0].partition("=")[0], _flags(VERBS[verb]))
        raise UsageError(f"{program} must be given options as its help shows them, got {unknown[0]!r}.")
    if isinstance(options, Evaluate):
        _require_run_or_pretrained(options)
    if isinstance(options, Inspect):
        _require_run_or_plan(options)
    return options


def read_settings(options: Configuration) -> dict[str, str]:
    """The settings that were given, as text by name: `--set`, and the options that stand for a setting."""
    pairs = [pair for group in options.settings for pair in group or [""]]
    for name in ("agent", "meta_steps"):
        value = getattr(options, name)
        pairs += [] if value is None else [f"{name}={value}"]
    return _by_name("--set", "key=value", pairs)


def read_sweep(options: Configuration) -> dict[str, str] | None:
    """What is to be swept, as text by name; None where nothing is."""
    pairs = [pair for group in options.sweep for pair in group or [""]]
    return _by_name("--sweep", "key=value,value", pairs) if pairs else None


def _by_name(flag: str, form: str, pairs: Sequence[str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise UsageError(f"{flag} must be written {form}, got {pair!r}.")
        if name in texts:
            raise UsageError(f"{flag} must name a setting once, got {name!r} twice.")
        texts[name] = text
    return texts


def _require_run_or_pretrained(options: Evaluate) -> None:
    """Refuses neither and both, and options that the one that was given has no use for."""
    if (options.run_dir is None) == (options.pretrained is None):
        got = "none" if options.run_dir is None else "both"
        raise UsageError(f"jaxmeta evaluate must be given either RUN_DIR or --pretrained, got {got}.")
    ways = ("RUN_DIR", "--pretrained")
    has, lacks = ways if options.run_dir is not None else reversed(ways)
    for name in {"RUN_DIR": ("best", "allow_import"), "--pretrained": ("baselines",)}[lacks]:
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')} must be given with {lacks}, got {has}.")


def _require_run_or_plan(options: Inspect) -> None:
    """A run has its configuration, and a plan has no folder."""
    if options.plan == (options.run_dir is not None):
        got = "both" if options.plan else "none"
        raise UsageError(f"jaxmeta inspect must be given either RUN_DIR or --plan, got {got}.")
    for field in dataclasses.fields(Configuration):
        if not options.plan and getattr(options, field.name) != field.default:
            raise UsageError(f"{_flag(field)} must come with --plan, got RUN_DIR {options.run_dir!r}.")


def _help(show: Any) -> None:
    with contextlib.suppress(SystemExit):
        show()


def _sentence(panel: str) -> str:
    r"""The message in the box that tyro prints, a title and then lines up to a rule, as one sentence.

    >>> _sentence("╭─ Value error ─╮\n│ Error parsing --seed: must be at │\n│ least 0. │\n│ ────── │\n│ For help ... │")
    '--seed must be at least 0.'
    """
    lines = [line.strip(" │") for line in panel.splitlines()[1:]]
    below_title = lines if _is_text(lines[0]) else lines[1:]
    text = " ".join(filter(None, itertools.takewhile(_is_text, below_title)))
    for pattern, replacement in REWORDED:
        text = re.sub(pattern, replacement, text)
    return text.rstrip(".") + "."


def _is_text(line: str) -> bool:
    return re.fullmatch("[-─]{4,}", line) is None


def _flags(kind: type) -> list[str]:
    options = [field for field in dataclasses.fields(kind) if Positional not in getattr(field.type, "__metadata__", ())]
    return ["--help", *map(_flag, options)]


def _flag(field: dataclasses.Field) -> str:
    return "--set" if field.name == "settings" else f"--{field.name.replace('_', '-')}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]


def _fail(status: int, sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return status
