"""The command line: what can be asked, and how a mistake is told.

Nothing here imports JAX, so that help and mistakes are answered at once; `jaxmeta.commands` does the work.
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import math
import os
import re
import select
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from jaxmeta import interrupts, synonyms
from jaxmeta.errors import UsageError, require_known, told

REWORDED = (
    (r"^Error parsing (\S+): ", r"\1 "),
    (r"^Missing value for argument '(\S+)'.*", r"\1 must be given a value, got none."),
    (r"^Missing from (.+?): (\S+) .*", r"\1 must be given \2, got none."),
)
"""What tyro says, and how this library says it: the argument, the rule, the value."""

USAGE_STATUS, FAILURE_STATUS, INTERRUPT_STATUS, PIPE_STATUS = 2, 1, 130, 141
"""130 and 141 are what shells report of a process that SIGINT or SIGPIPE has ended."""
ABOUT = (
    "Meta-reinforcement learning in JAX. The main job is `jaxmeta train`: without options it trains MAML over DQN on \
grid_navi and evaluates it, in minutes; `jaxmeta VERB --help` shows the options of a verb."
)


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


def _optional(metavar: str | None = None) -> Any:
    """Of an option whose help says in words what holds where it is not given, which tyro would call None."""
    return arg(metavar=metavar, help_behavior_hint="")


Positive = Annotated[int | None, _integer(1), _optional()]
Seed = Annotated[int | None, _integer(0, 2**31 - 1), _optional()]
Text = Annotated[str | None, _optional("NAME")]
JsonFile = Annotated[str | None, _optional("FILE")]
OptionalRunDir = Annotated[Positional[str | None], _optional("[RUN_DIR]")]
Folders = Annotated[Positional[tuple[str, ...]], arg(metavar="DIR ...")]
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
ALLOW_IMPORT = "Import the recipe or the tasks of a run that name a package.module:name; it runs that code."
Cache = Annotated[bool, arg(help="Keep compiled programs for the next time, in the user's cache folder.")]
Traceback = Annotated[Flag, arg(help="Of an error show the whole traceback, beside the sentence that tells it.")]
_SET = "--set {}=..."


def _option(text: str, default: Any = dataclasses.MISSING) -> Any:
    """A field with its help. Tyro would else read that out of the source, by a parser that other threads can break."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class List:
    """Recipes and task distributions, one line each."""

    traceback: Traceback = False


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is trained, on what, and how."""

    recipe: Text = _option("A name that `jaxmeta list` shows; maml if not given.", None)
    tasks: Annotated[str | None, _optional("SPEC")] = _option(
        "NAME or NAME:key=value,key=value; grid_navi if not given.", None
    )
    agent: Text = _option("actor_critic, dqn or tabular_q; what suits the recipe and the tasks if not given.", None)
    seed: Seed = _option("Of everything random; 0 if not given.", None)
    seeds: Annotated[str | None, _optional("SEEDS")] = _option(
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

    run_dir: Annotated[str | None, _optional("DIR")] = _option(
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
    coordinator: Annotated[str | None, _optional("HOST:PORT")] = _option(
        "Of several processes, where the first one listens; not needed on Slurm and TPU pods.", None
    )
    num_processes: Positive = _option("How many processes train this run together.", None)
    process_id: Seed = _option("Which of them this one is, from 0.", None)
    evaluate: Flag = _option("Evaluate on test tasks after training; so it is if nothing is said.", False)
    no_evaluate: Flag = _option("Do not, also not when the run is resumed without --evaluate.", False)
    baselines: Flag = _option("Measure scratch and finetune beside it; so it is if nothing is said.", False)
    no_baselines: Flag = _option("Do not, also not when the run is resumed or evaluated without --baselines.", False)
    timings: Flag = _option("Print how long each stage takes to trace, to compile and to run.", False)
    compilation_cache: Cache = True
    traceback: Traceback = False


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Adapts a trained run, or a pretrained learner, to tasks of a split, beside baselines."""

    run_dir: OptionalRunDir = _option("The folder of a run.", None)
    pretrained: Text = _option("Instead of a run, one of the trained learners that `jaxmeta list` shows.", None)
    split: str = _option("Whose tasks: train, validation, test or shifted.", "test")
    num_tasks: Annotated[int, _integer(2)] = _option("How many tasks.", 128)
    seed: Annotated[int, _integer(0, 2**31 - 1)] = _option("Of the tasks and of all randomness.", 0)
    baselines: Flag = _option("Measure scratch and finetune beside it; of a run, so it is if nothing is said.", False)
    no_baselines: Flag = _option("Do not; of a pretrained learner, so it is if nothing is said.", False)
    retune: Flag = _option("Tune and measure them again, whatever is known of them; that takes minutes.", False)
    best: Flag = _option("Take the checkpoint with the highest return while training, instead of the newest.", False)
    json: JsonFile = _option("Also write the evaluation here.", None)
    timings: Flag = _option("Print how long each stage takes to trace, to compile and to run.", False)
    allow_import: Flag = _option(ALLOW_IMPORT, False)
    compilation_cache: Cache = True
    traceback: Traceback = False


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Puts evaluated runs and scoreboards side by side; runs that differ by their seed alone are pooled."""

    folders: Folders = _option("Folders of runs that were evaluated, or of scoreboards.")
    json: JsonFile = _option("Also write the rows here.", None)
    traceback: Traceback = False


@dataclass(frozen=True, kw_only=True)
class Report:
    """Writes evaluated runs and scoreboards as a page that needs nothing but itself: tables that sort, and figures."""

    folders: Folders = _option("Folders of runs that were evaluated, or of scoreboards.")
    out: Annotated[str, arg(metavar="FILE.html")] = _option("Where to write the page.")
    markdown: Annotated[str | None, _optional("FILE.md")] = _option("Also write the overview as a table here.", None)
    picture: Annotated[str | None, _optional("FILE.png")] = _option("Also draw the overview here.", None)
    traceback: Traceback = False


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
    traceback: Traceback = False


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

    0: done. 1: it failed. 2: a mistake in what was asked. 130: Ctrl-C or SIGTERM. 141: nobody reads the output any
    more, as after `| head`; nothing is said then. A failure is one sentence on stderr, which names the line of a user's
    own code that it comes from, if there is one; `--traceback` puts the whole traceback before it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with interrupts.terminable():
            options = parse(words)
            if options is not None:
                from jaxmeta import commands

                commands.run(options)
            sys.stdout.flush()  # what a reader that has gone refuses is met here, and not when Python exits
        return 0
    except KeyboardInterrupt as error:
        return _fail(INTERRUPT_STATUS, str(error) or "Interrupted.")
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _readers_gone():
            return PIPE_STATUS
        status = USAGE_STATUS if isinstance(error, UsageError) else FAILURE_STATUS
        # Our own errors are sentences already; of anybody else's, the kind and the first line.
        own = type(error).__module__.startswith("jaxmeta")
        sentence = _with_place(str(error) if own else told(error), error)
        return _fail(status, sentence, error if "--traceback" in words else None)


def parse(argv: Sequence[str]) -> Any:
    """Reads the command line into one of the dataclasses above; None where help was asked for and given.

    Raises:
      UsageError: one sentence that names the argument, the rule and the value.
    """
    verb, *rest = argv or ["--help"]
    if verb in ("-h", "--help"):
        return _help(
            lambda: tyro.extras.subcommand_cli_from_dict(VERBS, prog="jaxmeta", description=ABOUT, args=["--help"])
        )
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
        option, flags = unknown[0].partition("=")[0], _flags(VERBS[verb])
        meant, see = _meant(option, flags), f"`{program} --help`"
        require_known(f"An option of {program}", option, flags, meant=meant, see=see)
        raise UsageError(f"{program} must be given options as its help shows them, got {unknown[0]!r}.")
    _require_no_contradiction(options)
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
    texts = _by_name("--set", "key=value", pairs)
    for field in dataclasses.fields(options):
        if field.name in texts and field.name not in _settings():
            raise UsageError(f"--set must name a setting, got {field.name!r}. Did you mean {_flag(field)!r}?")
    return texts


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


def choice(options: Any, name: str) -> bool | None:
    """What `--NAME` and `--no-NAME` say together; None where neither was given."""
    return True if getattr(options, name) else False if getattr(options, f"no_{name}") else None


def _require_no_contradiction(options: Any) -> None:
    for name in vars(options):
        if getattr(options, name) is True and getattr(options, f"no_{name}", False):
            raise UsageError(f"--{name} must be given without --no-{name}, got both.")
    if getattr(options, "retune", False) and options.no_baselines:
        raise UsageError("--retune must be given without --no-baselines, got both.")


def _require_run_or_pretrained(options: Evaluate) -> None:
    """Refuses neither and both, and options that the one that was given has no use for."""
    if (options.run_dir is None) == (options.pretrained is None):
        got = "none" if options.run_dir is None else "both"
        raise UsageError(f"jaxmeta evaluate must be given either RUN_DIR or --pretrained, got {got}.")
    ways = ("RUN_DIR", "--pretrained")
    has, lacks = ways if options.run_dir is not None else reversed(ways)
    for name in ("best", "allow_import") if lacks == "RUN_DIR" else ():
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


def _meant(option: str, flags: Sequence[str]) -> list[str]:
    """What an option stands for that there is not: another one, or a setting.

    >>> _meant("--steps", ["--meta-steps", "--set"]), _meant("--round", ["--set"]), _meant("--rounds", ["--json"])
    (['--meta-steps', '--set steps=...'], ['--set rounds=...'], [])
    """
    word, known = option.lstrip("-").replace("-", "_"), _settings() if "--set" in flags else set()
    settings = [*sorted(known & {word}), *synonyms.meant(synonyms.SETTINGS, option, known)]
    meant = [*synonyms.meant(synonyms.OPTIONS, option, flags), *map(_SET.format, settings)]
    if meant:
        return meant
    forms = {name: _SET.format(name) for name in known} | {flag[2:].replace("-", "_"): flag for flag in flags}
    return [forms[name] for name in difflib.get_close_matches(word, sorted(forms), n=1)]


def _settings() -> set[str]:
    """Names of the settings, by modules that do without JAX."""
    from jaxmeta import config

    groups = [kind for kind in vars(config).values() if dataclasses.is_dataclass(kind)]
    return {field.name for kind in groups for field in dataclasses.fields(kind)}


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


def _with_place(sentence: str, error: Exception) -> str:
    """A sentence that ends on the line of a user's own code that the error comes from, if there is one."""
    from jaxmeta import tracebacks

    line = tracebacks.user_line(error)
    return sentence if line is None else f"{sentence.removesuffix('.')} ({line})."


def _fail(status: int, sentence: str, to_trace: Exception | None = None) -> int:
    try:
        if to_trace is not None:
            traceback.print_exception(to_trace)
        print(sentence, file=sys.stderr, flush=True)
    except BrokenPipeError:
        _readers_gone()
    return status


def _readers_gone() -> bool:
    """Whether output goes to a pipe that nobody reads any more; what is left of it is thrown away then."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # it is no file
            watch = select.poll()
            watch.register(stream, 0)
            if watch.poll(0):  # an error, which a pipe has whose other end is closed
                gone = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return gone
