"""The options of each command. Nothing here imports JAX, so that help and mistakes are answered at once."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from tyro.conf import Positional, UseAppendAction, arg
from tyro.constructors import PrimitiveConstructorSpec

from jaxmeta.core.errors import UsageError, Words


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


def _option(text: str, default: Any = dataclasses.MISSING) -> Any:
    """A field with its help. Tyro would else read that out of the source, by a parser that other threads can break."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class List:
    """Recipes, task distributions and pretrained learners, one line each; of one, all there is to set or to know."""

    name: Annotated[Positional[str | None], _optional("[NAME]")] = _option("What to show all of.", None)
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


def read_settings(options: Configuration) -> dict[str, str]:
    """The settings that were given, as text by name: `--set`, and the options that stand for a setting."""
    pairs = [pair for group in options.settings for pair in group or [""]]
    for name in ("agent", "meta_steps"):
        value = getattr(options, name)
        pairs += [] if value is None else [f"{name}={value}"]
    texts = _by_name("--set", "key=value", pairs)
    for field in dataclasses.fields(options):
        if field.name in texts and field.name not in setting_names():
            hint = f"Did you mean {flag_of(field)!r}?"
            raise UsageError("--set", "name a setting", field.name, hint=hint)
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
            raise UsageError(flag, f"be written {form}", pair)
        if name in texts:
            raise UsageError(flag, "name a setting once", Words(f"{name!r} twice"))
        texts[name] = text
    return texts


def choice(options: Any, name: str) -> bool | None:
    """What `--NAME` and `--no-NAME` say together; None where neither was given."""
    return True if getattr(options, name) else False if getattr(options, f"no_{name}") else None


def setting_names() -> set[str]:
    """Names of the settings, by modules that do without JAX."""
    from jaxmeta.core import config

    return {field for kind in config.Config.__subclasses__() for field in kind.__struct_fields__}


def flag_of(field: dataclasses.Field) -> str:
    """How an option is written."""
    return "--set" if field.name == "settings" else f"--{field.name.replace('_', '-')}"
