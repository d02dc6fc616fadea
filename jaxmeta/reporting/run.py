"""A run as an object: what training returns and a folder holds, to be evaluated, drawn and looked at.

run = jaxmeta.train("rl2", "maze", meta_steps=200)
run.evaluate(num_tasks=32)
"""

import html
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from rich.console import Console

from jaxmeta.core import compilation_cache
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import MetaLearner, MetaState, TaskDistribution
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation.evaluate import EvaluationOptions
from jaxmeta.reporting import animation, cards, curves, progress, tables
from jaxmeta.training import hub, jobs, learner_files, loop, pretrained
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.jobs import NOTHING, Job, RunOptions
from jaxmeta.training.run_directory import RunDirectory, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Evaluation(dict[str, Any]):
    """What `evaluation.json` holds, shown as a table; docs/architecture.md says what its fields mean."""

    def __repr__(self) -> str:
        console = _console()
        tables.show_evaluation(console, self)
        return console.export_text().rstrip()

    def _repr_html_(self) -> str:
        console = _console()
        tables.show_evaluation(console, self)
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


@dataclass(frozen=True, eq=False)
class Run:
    """A run, in training or loaded: its learner, state and configuration."""

    learner: MetaLearner
    state: MetaState = field(repr=False)
    """Of several seeds, leaves [members, ...]; `members` takes it apart."""
    tasks: TaskDistribution
    config: dict[str, Any] = field(repr=False)
    """What `config.json` holds."""
    path: Path | None = None
    """The folder, if it has one."""
    log: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """The log points, as the lines of `metrics.jsonl`."""
    card: dict[str, Any] = field(default_factory=dict, repr=False)
    """The card, of a learner that was exported or ships with the library."""

    def __repr__(self) -> str:
        """In one line: `Run(rl2 on maze, seed 0, meta-step 200 of 200, return 0.93, in runs/rl2-maze-seed0)`."""
        facts = [f"{self.config['algorithm']} on {self.tasks.name}", multi_seed.described(self.config)]
        facts.append(f"meta-step {self.state.steps_taken:,} of {self.config['meta_steps']:,}")
        facts += [f"return {self.log[-1]['return']:.3g}"] if self.log else []
        facts += [f"in {self.path}"] if self.path else []
        return f"Run({', '.join(facts)})"

    def _repr_html_(self) -> str:
        picture = curves.training_as_svg(self.log) if self.log else ""
        return f"<p><code>{html.escape(repr(self))}</code></p>{picture}"

    @property
    def metrics(self) -> "DataFrame":
        """The log points, a row for each."""
        import pandas

        return pandas.DataFrame(self.log)

    @property
    def members(self) -> list[MetaState]:
        """The states of the members, in the order of seeds within each swept value; of a single run, its own."""
        return multi_seed.members(self.state)

    def evaluate(self, **options: Unpack[EvaluationOptions]) -> Evaluation:
        """Adapts to unseen tasks, beside baselines; see `jaxmeta.evaluate`. Where the run has a folder, the evaluation
        is left there with its picture.

        Raises:
          UsageError: an unknown split, or a number out of range.
        """
        content = evaluate(self, **options)
        keep(self, content)
        return content

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draws return and loss while training, also as a PNG where a path is given.

        Raises:
          UsageError: nothing was logged.
        """
        return curves.plot_training(self.log, path)

    def export(self, path: str | Path, *, member: int = 0) -> Path:
        """Writes the learner with its card as one file or folder, which `jaxmeta.load` and `jaxmeta evaluate` take.

        The card has what was trained, the settings, versions, the scores of the latest evaluation if there is one, and
        the digest of the arrays.

        Args:
          path: a file that ends in `.zip`, or a new folder.
          member: of a run of several seeds, which one, from 0.

        Raises:
          UsageError: a folder that is there already, or an unknown member.
        """
        states = self.members
        require(0 <= member < len(states), "member", f"be from 0 to {len(states) - 1}", member)
        config = dict(self.config)
        if len(states) > 1:
            config = multi_seed.config_of(config, multi_seed.members_of(config)[member])
        about = {name: value for name, value in self.card.items() if name not in ("config", "digest")}
        learner_files.save(Path(path), self.learner, states[member], config, **(about or cards.of_run(self, member)))
        return Path(path)

    def show(
        self,
        path: str | Path | None = None,
        *,
        task: int = 0,
        split: str = "test",
        member: int = 0,
        on_share: Callable[[float], None] = lambda share: None,
    ) -> animation.Animation:
        """Animates a lifetime in one task: episodes before, during and after adaptation. Notebooks display what it
        returns.

        Args:
          path: where to write it too: `.gif`, `.html`, `.mp4` or `.png`.
          task: seed of the task and of all randomness.
          split: the split that the task is drawn from.
          member: of a run of several seeds, which one, from 0.
          on_share: receives the share of the frames that is written, from 0 to 1.

        Raises:
          UsageError: a family without a drawing, an unknown split, ending or member.
        """
        states = self.members
        require(0 <= member < len(states), "member", f"be from 0 to {len(states) - 1}", member)
        meta = self.learner.meta(states[member])
        moving = animation.animate(
            self.learner, meta, self.tasks, task=task, split=split, name=str(self.config["algorithm"])
        )
        if path is not None:
            moving.save(path, on_share)
        return moving


def train(
    algorithm: str | None = None,
    tasks: str | TaskDistribution | None = None,
    settings: Mapping[str, Any] | AlgorithmConfig = NOTHING,
    *,
    hooks: loop.Hooks = loop.Hooks(),
    show_progress: bool = True,
    **options: Unpack[RunOptions],
) -> Run:
    """Meta-trains an algorithm on a task distribution.

    Args:
      algorithm: a name that `jaxmeta list` shows; by default `maml`.
      tasks: a specification such as `grid_navi:size=4`, or a task distribution; by default `grid_navi`.
      settings: the algorithm's own, by path or by its last words, or a whole configuration such as `MAMLConfig(...)`.
      hooks: what is called while it trains.
      show_progress: show a bar, in a terminal and in a notebook, or a line for each log point elsewhere.
      **options: how it is trained, see `RunOptions`: `meta_steps`, `seed`, `seeds`, `sweep`, `run_dir`, `resume`, ...

    Returns:
      The `Run`, trained.

    Raises:
      UsageError: invalid arguments; nothing was written.
      NonFiniteError: a metric or the state stopped being finite; nothing that came after it was kept.
      StorageError: something could not be written; the checkpoints before are as they were.
      Interrupted: Ctrl-C or SIGTERM; a checkpoint was written first if there is a `run_dir`. It is a KeyboardInterrupt.
    """
    compilation_cache.enable()
    job = jobs.prepare(algorithm, tasks, settings, **options)
    return run_job(job, hooks, Console(stderr=True, markup=False, emoji=False, quiet=not show_progress))


def run_job(job: Job, hooks: loop.Hooks, console: Console) -> Run:
    """Trains what `jobs.prepare` has composed, and shows how that goes."""
    log = job.run.read_metrics() if job.run and job.resume else []
    with progress.reporting(job.config["meta_steps"], console) as show:
        reported = hooks.on_log

        def on_log(record: dict[str, Any]) -> None:
            log.append(record)
            show(record)
            reported(record)

        hooks = hooks._replace(on_log=on_log)
        if "evaluate_every" in job.config and hooks.measure is loop.Hooks().measure:
            hooks = hooks._replace(measure=evaluation.on_validation_tasks(job.learner, job.tasks))
        state = loop.run_job(job, hooks)
    return Run(job.learner, state, job.tasks, job.config, job.run and job.run.path, log)


def load(
    name: str | Path, tasks: str | TaskDistribution | None = None, *, best: bool = False, allow_import: bool = False
) -> Run:
    """Brings back a run, an exported learner, or one that ships with the library.

    Args:
      name: the folder of a run, a file or folder that `Run.export` wrote, `hf://owner/name` of the Hugging Face hub, or
        one of the pretrained learners that `jaxmeta list` shows.
      tasks: the distribution that a run was trained on, or its specification; by default what its folder names.
      best: the checkpoint with the highest return while training, instead of the newest.
      allow_import: import the algorithm or the tasks where the folder names them as `package.module:name`. That runs
        the code of whoever wrote the folder's `config.json`.

    Raises:
      UsageError: there is neither, or the folder has no checkpoint yet, or it needs an import.
      CheckpointError: there are checkpoints, and none of them can be trusted.
    """
    if (path := _learner_file(str(name))) is not None:
        learner, state, distribution, config, card = learner_files.load(path, allow_import)
        return Run(learner, state, distribution, config, card=card)
    run = RunDirectory(Path(name))
    return Run(*jobs.restore(name, tasks, best=best, allow_import=allow_import), run.path, run.read_metrics())


def _learner_file(name: str) -> Path | None:
    """The folder or zip file of a learner, fetched if it is on a hub; None where the name is another folder."""
    if name.startswith(hub.PREFIX):
        return hub.fetch(name)
    there = os.path.exists(name)  # False also where a name is too long for a path
    if there and learner_files.is_learner(Path(name)):
        return Path(name)
    if os.path.isdir(name):
        return None
    require(not there, "A run to load", "be the folder of a run or a file that jaxmeta export wrote", name)
    require_known("A run to load", name, pretrained.available(), see="`jaxmeta list`")
    return pretrained.HOME / name


def evaluate(run: Run, **options: Unpack[EvaluationOptions]) -> Evaluation:
    """Adapts a run to tasks of a split and reports how well, how fast and at what cost, beside the baselines.

    Of several seeds every member adapts to the same tasks, with the same random numbers. What is reported pools them,
    and `members` has what each did; baselines are tuned once, and measured under the settings of the first.

    Args:
      run: what is evaluated.
      **options: see `EvaluationOptions`.

    Raises:
      UsageError: it is no run, an unknown split, or a number out of range.
    """
    require(isinstance(run, Run), "run", "be a Run, as jaxmeta.train and jaxmeta.load return it", run)
    return Evaluation(evaluation.evaluate(run.learner, run.state, run.tasks, run.config, **options))


def keep(run: Run, content: Evaluation) -> None:
    """Leaves an evaluation in the folder of a run, if there is one, with its picture."""
    if run.path is not None:
        folder = RunDirectory(run.path)
        write_json(folder.evaluation, content)
        curves.plot_adaptation(content, folder.picture("adaptation"))


def _console() -> Console:
    """A console that keeps what is printed, wide enough that no number is cut off."""
    return Console(record=True, file=io.StringIO(), width=WIDTH, markup=False, emoji=False)


WIDTH = 120
"""Of a table, in characters."""
