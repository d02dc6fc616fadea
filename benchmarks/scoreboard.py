"""Every method on every family of tasks, by one protocol: a cell each, kept in a file, of several seeds in one program.

    python benchmarks/scoreboard.py --form small --out runs/scoreboard
    jaxmeta report runs/scoreboard --out scoreboard.html

`protocol.py` says what every method is given. A training is evaluated after a ninth, a third and all of it, on the same
test tasks as all others, and at the end on training tasks and, where the family has them, shifted ones. `scratch` and
`finetune` are tuned on validation tasks, each with as many seeds.

A cell that is there already is kept, and a training that was interrupted is gone on with. `--only` picks cells, as
FAMILY, ALGORITHM or FAMILY/ALGORITHM.
"""

import argparse
import contextlib
import functools
import json
import shlex
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from protocol import FORMS, PARTS, SHARES, Form, after, plan, settings_of, tasks_of, trained

from jaxmeta.cli.main import INTERRUPT_STATUS
from jaxmeta.core import compilation_cache
from jaxmeta.core.errors import UsageError
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation.baselines import Choice
from jaxmeta.reporting import cells, progress
from jaxmeta.reporting.progress import duration
from jaxmeta.training import checkpoints, interrupts, jobs
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.run_directory import RunDirectory, write_json

COMMITTED = Path(__file__).parent / "results" / "scoreboard"
BESIDE_BASELINES = "maml"
"""The method whose lifetimes and agent the baselines have."""
BESIDE = cells.BASELINES + cells.ENDS
"""Whose cells are made with that method's, in every family."""
EVALUATION_SEED = 0


class Board(NamedTuple):
    """The requested cells, and their folder."""

    form: str
    size: Form
    out: Path

    def name(self, family: str, algorithm: str) -> str:
        """Of a cell's files."""
        return f"{family}-{algorithm}"

    def path(self, family: str, algorithm: str) -> Path:
        """Where its results go."""
        return self.out / f"{self.name(family, algorithm)}.cell.json"

    def reason(self, family: str, algorithm: str) -> Path:
        """Where it says why there are none, where an algorithm cannot do a family."""
        return self.out / f"{self.name(family, algorithm)}.reason.json"

    def ended(self, family: str, algorithm: str) -> bool:
        """Whether there is nothing left to do. A cell that is damaged, or lacks one made beside it, is made again.

        Raises:
          SystemExit: the cell is there, and of another form.
        """
        if not self.path(family, algorithm).is_file():
            return self.reason(family, algorithm).is_file()
        for name in (algorithm, *(BESIDE if algorithm == BESIDE_BASELINES else ())):
            path = self.path(family, name)
            try:
                cell = cells.read(path)
            except UsageError as error:
                print(error, flush=True)
                return False
            if not any(f" --form {self.form} " in command for command in cell["commands"]):
                raise SystemExit(
                    f"--out must be a folder of cells of form {self.form!r}, got {str(path)!r} of another."
                )
        return True


def wanted(form: Form, only: list[str]) -> list[tuple[str, str]]:
    """The cells of a form, or those of them that were picked."""
    every = [(family, algorithm) for family in form.families for algorithm in form.algorithms]
    for pick in only:
        if not any(pick in (family, algorithm, f"{family}/{algorithm}") for family, algorithm in every):
            raise SystemExit(
                f"--only must name cells of the form as FAMILY, ALGORITHM or FAMILY/ALGORITHM, got {pick!r}."
            )
    return [cell for cell in every if not only or {*cell, "/".join(cell)} & set(only)]


@functools.cache
def policies_of(family: str) -> evaluation.Policies:
    return evaluation.make_policies(tasks_of(family))


def evaluations(board: Board, family: str, job: jobs.Job, run: RunDirectory) -> Iterator[dict[str, Any]]:
    """At the end of training, for which baselines are tuned, on test tasks and on others; then after earlier shares."""
    like = jax.eval_shape(multi_seed.make_initial_state(job.learner, job.config), multi_seed.seeds_of(job.config))
    measurement = evaluation.make_measurement(job.learner, job.tasks, policies_of(family))
    algorithm, choices, tell = job.config["algorithm"], {}, progress.lines(functools.partial(print, flush=True))
    at = [(PARTS, "test"), *((PARTS, split) for split in ("train", "shifted") if split in job.tasks.splits)]
    at += [(share, "test") for share in SHARES if share < PARTS]
    for share, split in at:
        content = evaluation.evaluate(
            job.learner,
            checkpoints.read(run.checkpoints, after(share, job.config["meta_steps"]), like),
            job.tasks,
            job.config,
            split=split,
            num_tasks=board.size.num_tasks,
            seed=EVALUATION_SEED,
            with_baselines=algorithm == BESIDE_BASELINES and split == "test",
            with_gap_and_cost=(share, split) == (PARTS, "test"),
            baseline_seeds=board.size.seeds,
            choices=choices,
            retune=True,
            measurement=measurement,
            on_stage=tell,
        )
        if not choices and algorithm == BESIDE_BASELINES:
            choices = {
                name: Choice(**{field: report["tuned"][field] for field in Choice.__dataclass_fields__})
                for name, report in content["baselines"].items()
                if "tuned" in report
            }
        yield content


def make(board: Board, family: str, algorithm: str) -> None:
    """Trains and evaluates one cell, and writes it."""
    try:
        planned = plan(board.size, family, algorithm)
    except UsageError as error:  # whatever the folder: it does not apply, and the cell says why
        board.out.mkdir(parents=True, exist_ok=True)
        write_json(board.reason(family, algorithm), {"reason": str(error)})
        return
    run = RunDirectory(board.out / "runs" / board.name(family, algorithm))
    job = trained(run, planned)
    start = time.perf_counter()
    reported = list(evaluations(board, family, job, run))
    command = ["python", "benchmarks/scoreboard.py", "--form", board.form, "--only", f"{family}/{algorithm}"]
    made = cells.origin(job.config, [shlex.join([*command, "--out", str(board.out)])])
    memory = json.loads((run.path / "program.json").read_text())["memory"]
    own, *beside = cells.of_evaluations(
        reported, made, run.read_metrics(), memory=memory, evaluation_seconds=time.perf_counter() - start
    )
    for cell in beside if algorithm == BESIDE_BASELINES else ():
        cells.write(board.path(family, cell["method"]), cell)
    cells.write(board.path(family, algorithm), own)  # the last: where it is, nothing is missing


def known_seconds() -> dict[str, tuple[float, float]]:
    """By the file of each cell of the committed scoreboard, what a meta-step took and what its evaluations did."""
    known = {}
    for path in COMMITTED.glob("*.cell.json"):
        with contextlib.suppress(UsageError):  # a damaged one says nothing
            cell = cells.read(path)
            if cell["kind"] == "method":
                took = cell["training"]
                known[path.name] = took["seconds"] / took["meta_step"], took["evaluation_seconds"]
    return known


def estimates(missing: list[tuple[str, str]], form: Form) -> list[float]:
    """Seconds that each cell will take, by what the committed one did; of none, where there is nothing to tell by.

    A cell that nobody has made is taken for a usual one of its algorithm.
    """
    known = known_seconds()

    def estimate(family: str, algorithm: str) -> float:
        alike = [seconds for name, seconds in known.items() if name.endswith(f"-{algorithm}.cell.json")]
        usual = tuple(map(statistics.median, zip(*(alike or known.values()), strict=True)))
        per_meta_step, evaluating = known.get(f"{family}-{algorithm}.cell.json", usual)
        try:
            return per_meta_step * settings_of(family, algorithm, form)["meta_steps"] + evaluating
        except UsageError:  # it does not apply
            return 0.0

    return [estimate(*cell) for cell in missing] if known else []


def require_writable(out: Path) -> None:
    """Raises SystemExit for a folder that cells cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise SystemExit(
            f"--out must be a folder that can be written to, got {str(out)!r} ({error.strerror})."
        ) from None


def make_all(board: Board, missing: list[tuple[str, str]], expected: list[float]) -> list[str]:
    """Makes cells one after the other, with a line for each; returns the names of those that failed.

    The time that is left goes by what was expected, and by how that has held for the cells before.
    """
    failed, start = [], time.perf_counter()
    for index, (family, algorithm) in enumerate(missing):
        start, ended = time.perf_counter(), "done"
        try:
            make(board, family, algorithm)
        except Exception:
            traceback.print_exc()
            failed.append(f"{family}/{algorithm}")
            ended = "failed"
        now = time.perf_counter()
        line = f"{index + 1}/{len(missing)} {family}/{algorithm}: {ended}, {now - start:.0f} s"
        if made := sum(expected[: index + 1]):
            line += f"; about {duration((now - start) / made * sum(expected[index + 1 :]))} left"
        print(line, flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=list(FORMS), default="small")
    parser.add_argument("--only", nargs="+", default=[], metavar="CELL")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    board = Board(options.form, FORMS[options.form], options.out)
    compilation_cache.enable()
    chosen = wanted(board.size, options.only)
    require_writable(board.out)
    missing = [cell for cell in chosen if not board.ended(*cell)]
    print(f"{len(chosen)} cells, {len(chosen) - len(missing)} of them there already", flush=True)
    expected = estimates(missing, board.size)
    reported = "nobody knows how long: there is no committed scoreboard to tell by"
    if expected or not missing:
        reported = (
            f"about {duration(sum(expected))} on the machine of the committed scoreboard, which may be busier or slower"
        )
    print(f"To make the others takes {reported}", flush=True)
    try:
        with interrupts.terminable():
            failed = make_all(board, missing, expected)
    except KeyboardInterrupt as error:
        print(f"{str(error) or 'Interrupted.'} The same command goes on from there.", file=sys.stderr)
        raise SystemExit(INTERRUPT_STATUS) from None
    if failed:
        raise SystemExit(f"{', '.join(failed)} failed.")


if __name__ == "__main__":
    main()
