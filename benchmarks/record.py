"""What benchmarks share: a file of results that is added to, and trainings that are taken up where they were left."""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jaxmeta
from jaxmeta.cli.options import read_pairs
from jaxmeta.core.settings import Text
from jaxmeta.core.types import MetaLearner, PyTree, TaskDistribution
from jaxmeta.training.run_directory import write_json

FIRST_SEED = {"validation": 2_000_000, "test": 3_000_000}
"""Of the tasks of a split; a method's seed is added to it."""


def cell(method: str, seed: int | str) -> str:
    """The name of what a method did with a seed."""
    return f"{method}, seed {seed}"


def by_method(cells: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Cells by method, and then by seed."""
    grouped: dict[str, dict[str, Any]] = {}
    for name, content in cells.items():
        method, _, seed = name.rpartition(", seed ")
        grouped.setdefault(method, {})[seed] = content
    return grouped


def read_settings(pairs: Iterable[str]) -> dict[str, Any]:
    """Settings that are written `KEY=VALUE` on a command line."""
    return {name: Text(text) for name, text in read_pairs("--set", "KEY=VALUE", [[pair] for pair in pairs]).items()}


def train(
    algorithm: str, tasks: TaskDistribution, seed: int, run_dir: Path, settings: Mapping[str, Any]
) -> tuple[MetaLearner, PyTree]:
    """The learner and its meta-parameters, of a training that is taken up where it was left."""
    resume = (run_dir / "config.json").is_file()
    run = jaxmeta.train(algorithm, tasks, settings, show_progress=False, seed=seed, run_dir=run_dir, resume=resume)
    return run.learner, run.learner.meta(run.state)


def commands_of(content: dict[str, Any]) -> str:
    """The commands that results were made by, as a Markdown block."""
    return "".join(f"\n    {command}" for command in content["commands"])


class Record:
    """What was tuned and measured of one subject, as a JSON file that is written after every addition.

    Args:
      path: the file; it need not exist.
      subject: what all of it is about.

    Raises:
      SystemExit: the file is about something else.
    """

    def __init__(self, path: Path, subject: dict[str, Any]):
        self.path = path
        self.content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        held = self.content.setdefault("subject", subject)
        if held != subject:
            raise SystemExit(f"--out must be a file about {subject}, got one about {held}.")

    def kept(self, group: str, name: str, make: Callable[[], Any]) -> Any:
        """What the file holds by that name; made and written if it does not."""
        held = self.content.setdefault(group, {})
        if name not in held:
            held[name] = make()
            write_json(self.path, self.content)
        return held[name]

    def close(self, script: str, **summary: Any) -> dict[str, Any]:
        """Writes the script's command, beside those of before, and what everything comes to; returns all."""
        command = f"python benchmarks/{script} {shlex.join(sys.argv[1:])}"
        commands = self.content.setdefault("commands", [])
        if command not in commands:
            commands.append(command)
        self.content |= summary
        write_json(self.path, self.content)
        return self.content
