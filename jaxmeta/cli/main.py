"""The command line: parses a command, runs it, and reports invalid input in one line.

Nothing here imports JAX before it must, so that help and invalid input are answered at once.
"""

import argparse
import contextlib
import difflib
import os
import select
import sys
import traceback
from collections.abc import Sequence

from jaxmeta.cli.options import VERBS, Parser, checked, parser_of
from jaxmeta.core import synonyms
from jaxmeta.core.errors import NONE, UsageError, reported, require_known
from jaxmeta.training import interrupts

USAGE_STATUS, FAILURE_STATUS, INTERRUPT_STATUS, PIPE_STATUS = 2, 1, 130, 141
"""130 and 141 are what shells report of a process that SIGINT or SIGPIPE has ended."""

ABOUT = (
    "Meta-reinforcement learning in JAX. The main job is `jaxmeta train`: without options it trains MAML over DQN on "
    "grid_navi and evaluates it, in minutes; `jaxmeta VERB --help` shows the options of a verb."
)
_SET = "--set {}=..."
ALIKE = 0.75
"""How alike a word and an option are, from 0 to 1, that differ by a slip of the pen."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    0: done. 1: it failed. 2: invalid input. 130: Ctrl-C or SIGTERM. 141: the output's reader is gone, as after
    `| head`; nothing is said then. A failure is one sentence on stderr, which names the line of a user's own code that
    it comes from, if there is one; `--traceback` puts the whole traceback before it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        with interrupts.terminable():
            parsed = parse(words)
            if parsed is not None:
                from jaxmeta.cli import commands

                commands.run(*parsed)
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
        sentence = _with_place(str(error) if own else reported(error), error)
        return _fail(status, sentence, error if "--traceback" in words else None)


def parse(argv: Sequence[str]) -> tuple[str, argparse.Namespace] | None:
    """Reads the command line: the verb and its options; None where help was printed.

    Raises:
      UsageError: one sentence that names the argument, the rule and the value.
    """
    verb, *rest = argv or ["--help"]
    if verb in ("-h", "--help"):
        print(_overview())
        return None
    if verb == "--version":
        import jaxmeta

        print(f"jaxmeta {jaxmeta.__version__}")
        return None
    require_known("The command", verb, VERBS)
    parser = parser_of(verb)
    if "-h" in rest or "--help" in rest:
        print(parser.format_help())
        return None
    try:
        read = parser.parse_known_args if "--" in rest else parser.parse_known_intermixed_args
        options, unknown = read(rest)
    except argparse.ArgumentError as error:
        raise _refusal(error) from None
    if unknown:
        _refuse(unknown[0], parser)
    return verb, checked(verb, options)


def _refuse(word: str, parser: Parser) -> None:
    """Refuses an unknown option, naming the nearest one, or an argument too many."""
    if not word.startswith("-"):
        raise UsageError(parser.prog, f"be given at most {' and '.join(parser.arguments())}", word)
    option, flags = word.partition("=")[0], parser.flags()
    meant, see = _meant(option, flags), f"`{parser.prog} --help`"
    require_known(f"An option of {parser.prog}", option, flags, meant=meant, see=see)
    raise UsageError(parser.prog, "be given options as its help shows them", word)


def _refusal(error: argparse.ArgumentError) -> UsageError:
    """What argparse says, in the words of this library."""
    name = (error.argument_name or "The command line").partition("/")[0]
    if "expected" in str(error.message):
        return UsageError(name, "be given a value", NONE)
    return UsageError(name, "be given as --help shows it", NONE, reason=str(error.message))


def _overview() -> str:
    verbs = "".join(f"  {verb:9} {add.__doc__}\n" for verb, add in VERBS.items())
    return f"usage: jaxmeta [-h] [--version] VERB ...\n\n{ABOUT}\n\nverbs:\n{verbs}"


def _meant(option: str, flags: Sequence[str]) -> list[str]:
    """What an option stands for that there is not: another one, or a setting.

    >>> _meant("--steps", ["--meta-steps", "--set"]), _meant("--num-envs", ["--set"]), _meant("--num-envs", ["--json"])
    (['--meta-steps', '--set rollout_length=...'], ['--set num_envs=...'], [])
    """
    word, own = option.lstrip("-").replace("-", "_"), {flag[2:].replace("-", "_"): flag for flag in flags}
    meant = synonyms.meant(synonyms.OPTIONS, option, flags)
    slip = difflib.get_close_matches(word, sorted(own), n=1, cutoff=ALIKE)
    if slip and not meant and "_" not in word:
        return [own[slip[0]]]  # without the names of settings, which import JAX
    known = _setting_names() if "--set" in flags else set()
    settings = [*sorted(known & {word}), *synonyms.meant(synonyms.SETTINGS, option, known)]
    meant += map(_SET.format, settings)
    if meant:
        return meant
    forms = {name: _SET.format(name) for name in known} | own
    return [forms[name] for name in difflib.get_close_matches(word, sorted(forms), n=1)]


def _setting_names() -> set[str]:
    """Names of the settings of our algorithms, by which each is known."""
    from jaxmeta.algorithms import registry
    from jaxmeta.core.settings import paths_of, shortest

    names = set()
    for algorithm in registry.ALGORITHMS:
        known = list(paths_of(registry.find(algorithm).config()))
        names |= {shortest(path, known) for path in known}
    return names


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
    """Whether output goes to a closed pipe; the rest of it is discarded then."""
    gone = False
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # it is no file
            watch = select.poll()
            watch.register(stream, 0)
            if watch.poll(0):  # an error, which a pipe has whose other end is closed
                gone = True
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return gone
