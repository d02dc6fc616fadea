"""The options of each command. Nothing here imports JAX, so that help and invalid input are answered at once."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from jaxmeta.core.errors import NONE, UsageError, Words

LARGEST_SEED = 2**31 - 1
INTEGERS: dict[str, tuple[int, int | None]] = {
    **dict.fromkeys(("seed", "process_id", "task", "member"), (0, LARGEST_SEED)),
    **dict.fromkeys(("meta_steps", "log_every", "checkpoint_every", "evaluate_every"), (1, None)),
    **dict.fromkeys(("keep", "devices", "num_processes"), (1, None)),
    "num_tasks": (2, None),
}
"""Options whose value is an integer: from which to which."""
LOGGERS = ("wandb", "mlflow", "trackio")
ALLOW_IMPORT = "import the algorithm or the tasks of a run that name a package.module:name; it runs that code"
BOTH = Words("both")


class Parser(argparse.ArgumentParser):
    """A parser that leaves it to its caller to say what is wrong."""

    def __init__(self, verb: str, **options: Any):
        super().__init__(
            prog=f"jaxmeta {verb}".strip(), allow_abbrev=False, exit_on_error=False, add_help=False, **options
        )
        self.add("--help", "-h", help="show this help", action="store_true")

    def add(self, *names: str, **options: Any) -> None:
        """Adds an argument, whose value is None where it is not given."""
        if "action" not in options and names[0].startswith("-"):
            options.setdefault("metavar", "N" if names[0][2:].replace("-", "_") in INTEGERS else "NAME")
        described: dict[str, Any] = {"default": None} | options
        self.add_argument(*names, **described)

    def flag(self, name: str, text: str) -> None:
        """Adds a switch."""
        self.add(name, help=text, action="store_true", default=False)

    def flags(self) -> list[str]:
        """How its options are written."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def arguments(self) -> list[str]:
        """The names of its positional arguments."""
        return [str(action.metavar) for action in self._actions if not action.option_strings]


def _list(parser: Parser) -> None:
    """Algorithms, task distributions and pretrained learners, one line each; of one, all there is to set or to know."""
    parser.add("name", nargs="?", metavar="NAME", help="what to show all of")


def _configuration(parser: Parser) -> None:
    parser.add("--recipe", "--algorithm", dest="algorithm_option", help="the same as ALGORITHM")
    parser.add("--tasks", dest="tasks_option", metavar="SPEC", help="the same as TASKS")
    parser.add("--agent", help="actor_critic, dqn or tabular_q; by default what suits the algorithm and the tasks")
    parser.add("--seed", help="of everything random; by default 0")
    parser.add("--seeds", metavar="SEEDS", help="in place of --seed several, 0-7 or 0,3,5, trained in one program")
    parser.add(
        *("--sweep",),
        **{"nargs": "*", "action": "append", "metavar": "KEY=VALUE,VALUE"},
        help="traced hyper-parameters of which each value is trained with each seed, in the same program",
    )
    parser.add("--meta-steps", help="meta-steps of the whole run; by default the algorithm's own number")
    parser.add("--config", metavar="FILE", help="settings and options from a run's config.json, or from YAML or TOML")
    parser.add(
        *("--set",),
        **{"nargs": "*", "action": "append", "metavar": "KEY=VALUE"},
        help="the algorithm's settings, which `jaxmeta list ALGORITHM` shows",
    )


ALGORITHM = "a name that `jaxmeta list` shows; by default maml"
TASKS = "NAME or NAME:key=value,key=value; by default grid_navi"


def _train(parser: Parser) -> None:
    """Meta-trains an algorithm, then evaluates it. Without options: MAML over DQN on grid_navi."""
    parser.add("algorithm", nargs="?", metavar="ALGORITHM", help=ALGORITHM)
    parser.add("tasks", nargs="?", metavar="TASKS", help=TASKS)
    _configuration(parser)
    parser.add("--run-dir", metavar="DIR", help="a new or empty folder; by default runs/ALGORITHM-AGENT-TASKS-seedSEED")
    parser.flag("--resume", "go on from the newest checkpoint of a run; what is not given is taken from it")
    parser.flag("--allow-import", f"with --resume: {ALLOW_IMPORT}")
    parser.add("--log-every", help="meta-steps between log points; by default a hundredth of the run")
    parser.add("--checkpoint-every", help="meta-steps between checkpoints; by default five log points")
    parser.add("--evaluate-every", help="meta-steps between evaluations on validation tasks; by default none")
    parser.add("--keep", help="how many of the newest checkpoints stay, beside the best; by default 3")
    parser.add("--devices", help="how many the tasks of a batch are spread over; by default all")
    parser.add("--on-nonfinite", help="where numbers are not finite: stop, or skip the meta-step; by default stop")
    parser.add("--on-write-error", help="where a disk is full: continue, or stop; by default continue")
    parser.add("--log", help=f"log to {', '.join(LOGGERS)} too, beside TensorBoard")
    parser.add("--coordinator", metavar="HOST:PORT", help="of several processes, where the first one listens")
    parser.add("--num-processes", help="how many processes train this run together")
    parser.add("--process-id", help="which of them this one is, from 0")
    parser.flag("--evaluate", "evaluate on test tasks after training; so it is by default")
    parser.flag("--no-evaluate", "do not, also not when the run is resumed without --evaluate")
    parser.flag("--baselines", "measure scratch and finetune beside it; so it is by default")
    parser.flag("--no-baselines", "do not, also not when the run is resumed or evaluated without --baselines")
    parser.flag("--timings", "print how long each stage takes to trace, to compile and to run")
    _cache(parser)


def _evaluate(parser: Parser) -> None:
    """Adapts a trained run, or a pretrained learner, to tasks of a split, beside baselines."""
    parser.add("run", nargs="?", metavar="RUN_DIR|PRETRAINED", help="the folder of a run, or a pretrained learner")
    parser.add("--pretrained", help="the same as PRETRAINED")
    parser.add("--split", help="whose tasks: train, validation, test or shifted (default: test)", default="test")
    parser.add("--num-tasks", help="how many tasks (default: 128)", default="128")
    parser.add("--seed", help="of the tasks and of all randomness (default: 0)", default="0")
    parser.flag("--baselines", "measure scratch and finetune beside it; of a run, so it is by default")
    parser.flag("--no-baselines", "do not; of a pretrained learner, so it is by default")
    parser.flag("--retune", "tune and measure them again, whatever is known of them; that takes minutes")
    parser.flag("--best", "take the checkpoint with the highest return while training, instead of the newest")
    parser.add("--json", metavar="FILE", help="also write the evaluation here")
    parser.flag("--timings", "print how long each stage takes to trace, to compile and to run")
    parser.flag("--allow-import", ALLOW_IMPORT)
    _cache(parser)


def _compare(parser: Parser) -> None:
    """Puts evaluated runs and scoreboards side by side; runs that differ by their seed alone are pooled."""
    parser.add("folders", nargs="*", metavar="DIR", help="folders of runs that were evaluated, or of scoreboards")
    parser.add("--json", metavar="FILE", help="also write the rows here")


def _report(parser: Parser) -> None:
    """Writes evaluated runs and scoreboards as a page that needs nothing but itself: tables that sort, and figures."""
    parser.add("folders", nargs="*", metavar="DIR", help="folders of runs that were evaluated, or of scoreboards")
    parser.add("--out", metavar="FILE.html", help="where to write the page")
    parser.add("--markdown", metavar="FILE.md", help="also write the overview as a table here")
    parser.add("--picture", metavar="FILE.png", help="also draw the overview here")


def _inspect(parser: Parser) -> None:
    """What a run is, how far it got, which of its checkpoints verify, and what it costs; or what one would need."""
    parser.add("names", nargs="*", metavar="RUN_DIR", help="the folder of a run; with --plan, ALGORITHM and TASKS")
    parser.flag("--plan", "instead of a run, what these options would need: compiles it and times a few meta-steps")
    _configuration(parser)
    parser.add("--json", metavar="FILE", help="also write it here, with all settings")
    parser.flag("--allow-import", ALLOW_IMPORT)
    _cache(parser)


def _show(parser: Parser) -> None:
    """Animates episodes of an unseen task before, during and after adaptation."""
    parser.add("run", nargs="?", metavar="RUN_DIR|PRETRAINED", help="the folder of a run, or a pretrained learner")
    parser.add("--out", metavar="FILE", help="where to write it: .gif, .html, .mp4 (with ffmpeg), or .png of the end")
    parser.add("--task", metavar="SEED", help="seed of the task and of all randomness (default: 0)", default="0")
    parser.add("--split", help="the task's: train, validation, test or shifted (default: test)", default="test")
    parser.add("--member", help="of a run of several seeds, which one, from 0 (default: 0)", default="0")
    parser.flag("--best", "take the checkpoint with the highest return while training, instead of the newest")
    parser.flag("--allow-import", ALLOW_IMPORT)
    _cache(parser)


def _export(parser: Parser) -> None:
    """Writes a trained learner with its card as one file, without pickle, which evaluate and show take."""
    parser.add("run", nargs="?", metavar="RUN_DIR", help="the folder of a run")
    parser.add("--out", metavar="FILE.zip", help="where to write it; without .zip, a new folder")
    parser.add("--member", help="of a run of several seeds, which one, from 0 (default: 0)", default="0")
    parser.flag("--best", "take the checkpoint with the highest return while training, instead of the newest")
    parser.flag("--allow-import", ALLOW_IMPORT)


def _cache(parser: Parser) -> None:
    parser.flag("--no-compilation-cache", "keep no compiled programs for the next time in the user's cache folder")


VERBS: dict[str, Callable[[Parser], None]] = {
    "list": _list,
    "train": _train,
    "evaluate": _evaluate,
    "compare": _compare,
    "report": _report,
    "inspect": _inspect,
    "show": _show,
    "export": _export,
}


def parser_of(verb: str) -> Parser:
    """What reads the options of a command."""
    parser = Parser(verb, description=VERBS[verb].__doc__)
    VERBS[verb](parser)
    parser.flag("--traceback", "of an error show the traceback, beside the sentence")
    return parser


def checked(verb: str, options: argparse.Namespace) -> argparse.Namespace:
    """Options of the types that they are to have, which do not contradict one another.

    Raises:
      UsageError: one sentence that names the argument, the rule and the value.
    """
    for name, (low, high) in INTEGERS.items():
        if (text := getattr(options, name, None)) is not None:
            setattr(options, name, _integer(f"--{name.replace('_', '-')}", text, low, high))
    for name, value in vars(options).items():
        if value is True and getattr(options, f"no_{name}", False):
            raise UsageError(f"--{name}", f"be given without --no-{name}", BOTH)
    if getattr(options, "retune", False) and options.no_baselines:
        raise UsageError("--retune", "be given without --no-baselines", BOTH)
    if verb == "inspect":
        _place_names(options)
    aliases = (
        ("algorithm", "--recipe", "ALGORITHM"),
        ("tasks", "--tasks", "TASKS"),
        ("run", "--pretrained", "RUN_DIR"),
    )
    for name, flag, argument in aliases:
        alias = getattr(options, f"{name}_option", getattr(options, "pretrained", None) if name == "run" else None)
        if alias is not None:
            if getattr(options, name) is not None:
                raise UsageError(flag, f"be given without {argument}", BOTH)
            setattr(options, name, alias)
    if verb in ("evaluate", "show", "export") and options.run is None:
        raise UsageError(f"jaxmeta {verb}", "be given either RUN_DIR or PRETRAINED", NONE)
    return options


def _place_names(options: argparse.Namespace) -> None:
    """The names that `inspect` was given, as what they are: a run has its configuration, and a plan has no folder."""
    names, most = options.names, 2 if options.plan else 1
    if len(names) > most:
        raise UsageError("jaxmeta inspect", "be given options as its help shows them", names[most])
    if not (names or options.plan):
        raise UsageError("jaxmeta inspect", "be given either RUN_DIR or --plan", NONE)
    options.run = None if options.plan else names[0]
    options.algorithm, options.tasks = [*names, None, None][:2] if options.plan else (None, None)
    given = ("algorithm_option", "tasks_option", "agent", "seed", "seeds", "sweep", "meta_steps", "config", "set")
    for name in given if options.run else ():
        if getattr(options, name) is not None:
            flag = f"--{name.removesuffix('_option').replace('_', '-')}"
            raise UsageError(flag, "come with --plan", Words(f"RUN_DIR {options.run!r}"))


def _integer(flag: str, text: str, low: int, high: int | None) -> int:
    rule = f"be an integer of at least {low}" if high is None else f"be an integer from {low} to {high}"
    try:
        value = int(text)
    except ValueError:
        raise UsageError(flag, rule, text) from None
    if value < low or (high is not None and value > high):
        raise UsageError(flag, rule, text)
    return value


def read_pairs(flag: str, form: str, groups: Sequence[Sequence[str]] | None) -> dict[str, str]:
    """What a repeated option of pairs holds, as text by name.

    >>> read_pairs("--set", "key=value", [["a=1", "b=x=y"], ["c="]])
    {'a': '1', 'b': 'x=y', 'c': ''}
    """
    texts: dict[str, str] = {}
    for pair in (pair for group in groups or () for pair in group or [""]):
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise UsageError(flag, f"be written {form}", pair)
        if name in texts:
            raise UsageError(flag, "name a setting once", Words(f"{name!r} twice"))
        texts[name] = text
    return texts


def choice(options: argparse.Namespace, name: str) -> bool | None:
    """What `--NAME` and `--no-NAME` say together; None where neither was given."""
    return True if getattr(options, name) else False if getattr(options, f"no_{name}") else None
