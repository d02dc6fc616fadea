"""The command line: reads what is asked, does it, and tells a mistake in one sentence.

Nothing here imports JAX before it must, so that help and mistakes are answered at once.
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import select
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import tyro
from tyro.conf import Positional

from jaxmeta.cli.options import VERBS, Configuration, Evaluate, Inspect, flag_of, setting_names
from jaxmeta.core import synonyms
from jaxmeta.core.errors import NONE, UsageError, Words, require_known, told
from jaxmeta.training import interrupts

REWORDED = (
    (r"^Error parsing (\S+): ", r"\1 "),
    (r"^Missing value for argument '(\S+)'.*", r"\1 must be given a value, got none."),
    (r"^Missing from (.+?): (\S+) .*", r"\1 must be given \2, got none."),
)
"""What tyro says, and how this library says it: the argument, the rule, the value."""

BOTH = Words("both")
USAGE_STATUS, FAILURE_STATUS, INTERRUPT_STATUS, PIPE_STATUS = 2, 1, 130, 141
"""130 and 141 are what shells report of a process that SIGINT or SIGPIPE has ended."""

ABOUT = (
    "Meta-reinforcement learning in JAX. The main job is `jaxmeta train`: without options it trains MAML over DQN on \
grid_navi and evaluates it, in minutes; `jaxmeta VERB --help` shows the options of a verb."
)

_SET = "--set {}=..."


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
                from jaxmeta.cli import commands

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
    """Reads the command line into one of `options.VERBS`; None where help was asked for and given.

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
        raise _refusal(_sentence(panel.getvalue())) from None
    if unknown:
        option, flags = unknown[0].partition("=")[0], _flags(VERBS[verb])
        meant, see = _meant(option, flags), f"`{program} --help`"
        require_known(f"An option of {program}", option, flags, meant=meant, see=see)
        raise UsageError(program, "be given options as its help shows them", unknown[0])
    _require_no_contradiction(options)
    if isinstance(options, Evaluate):
        _require_run_or_pretrained(options)
    if isinstance(options, Inspect):
        _require_run_or_plan(options)
    return options


def _require_no_contradiction(options: Any) -> None:
    for name in vars(options):
        if getattr(options, name) is True and getattr(options, f"no_{name}", False):
            raise UsageError(f"--{name}", f"be given without --no-{name}", BOTH)
    if getattr(options, "retune", False) and options.no_baselines:
        raise UsageError("--retune", "be given without --no-baselines", BOTH)


def _require_run_or_pretrained(options: Evaluate) -> None:
    """Refuses neither and both, and options that the one that was given has no use for."""
    if (options.run_dir is None) == (options.pretrained is None):
        got = NONE if options.run_dir is None else BOTH
        raise UsageError("jaxmeta evaluate", "be given either RUN_DIR or --pretrained", got)
    ways = ("RUN_DIR", "--pretrained")
    has, lacks = ways if options.run_dir is not None else reversed(ways)
    for name in ("best", "allow_import") if lacks == "RUN_DIR" else ():
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')}", f"be given with {lacks}", Words(has))


def _require_run_or_plan(options: Inspect) -> None:
    """A run has its configuration, and a plan has no folder."""
    if options.plan == (options.run_dir is not None):
        raise UsageError("jaxmeta inspect", "be given either RUN_DIR or --plan", BOTH if options.plan else NONE)
    for field in dataclasses.fields(Configuration):
        if not options.plan and getattr(options, field.name) != field.default:
            raise UsageError(flag_of(field), "come with --plan", Words(f"RUN_DIR {options.run_dir!r}"))


def _meant(option: str, flags: Sequence[str]) -> list[str]:
    """What an option stands for that there is not: another one, or a setting.

    >>> _meant("--steps", ["--meta-steps", "--set"]), _meant("--round", ["--set"]), _meant("--rounds", ["--json"])
    (['--meta-steps', '--set steps=...'], ['--set rounds=...'], [])
    """
    word, known = option.lstrip("-").replace("-", "_"), setting_names() if "--set" in flags else set()
    settings = [*sorted(known & {word}), *synonyms.meant(synonyms.SETTINGS, option, known)]
    meant = [*synonyms.meant(synonyms.OPTIONS, option, flags), *map(_SET.format, settings)]
    if meant:
        return meant
    forms = {name: _SET.format(name) for name in known} | {flag[2:].replace("-", "_"): flag for flag in flags}
    return [forms[name] for name in difflib.get_close_matches(word, sorted(forms), n=1)]


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


def _refusal(sentence: str) -> UsageError:
    """What a sentence says, taken apart."""
    found = re.fullmatch(r"(\S+) must (.+), got (.+?)\.", sentence)
    if found is None:
        return UsageError("The command line", "be as --help shows it", Words(sentence.rstrip(".")))
    return UsageError(found[1], found[2], Words(found[3]))


def _is_text(line: str) -> bool:
    return re.fullmatch("[-─]{4,}", line) is None


def _flags(kind: type) -> list[str]:
    options = [field for field in dataclasses.fields(kind) if Positional not in getattr(field.type, "__metadata__", ())]
    return ["--help", *map(flag_of, options)]


def _with_place(sentence: str, error: Exception) -> str:
    """A sentence that ends on the line of a user's own code that the error comes from, if there is one."""
    from jaxmeta.cli import tracebacks

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
