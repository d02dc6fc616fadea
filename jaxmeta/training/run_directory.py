"""The folder of a run: the names of what lies in it, and how that is written so that a crash leaves no half of it."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmeta.core import fields
from jaxmeta.core.errors import LARGEST_INT, UsageError, Words, require
from jaxmeta.core.settings import flattened
from jaxmeta.training import seeds as multi_seed

LOCK = ".lock"
"""An empty file, locked by the process that trains in the folder."""
WRITABLE = "be a folder that can be written"
"""What a run's folder must be."""
CONFIG = fields.record(
    {
        "algorithm": fields.text,
        "tasks": fields.text,
        "seed": fields.whole(0, LARGEST_INT),
        "meta_steps": fields.whole(1, LARGEST_INT),
        "settings": fields.record({}),
    },
    {
        "log_every": fields.whole(1, LARGEST_INT),
        "checkpoint_every": fields.whole(1, LARGEST_INT),
        "evaluate_every": fields.whole(1, LARGEST_INT),
        "keep": fields.whole(1, LARGEST_INT),
        "on_nonfinite": fields.text,
        "on_write_error": fields.text,
        "evaluate": fields.flag,
        "baselines": fields.flag,
        "devices": fields.whole(1),
        "seeds": fields.listed(fields.whole(0, LARGEST_INT), "integers"),
        "sweep": fields.record({}, others=fields.numbers),
        "versions": fields.record({}, others=fields.text),
        "python": fields.text,
        "device": fields.record({"platform": fields.text, "kind": fields.text, "count": fields.whole(1)}),
    },
)
"""`config.json`: what it takes to compose a run again, and what it ran on."""
LOG_POINT = fields.record(
    {
        "meta_step": fields.whole(0),
        "env_steps": fields.whole(0),
        "seconds": fields.number,
        "loss": fields.number,
        "return": fields.number,
    },
    {"loss_by_member": fields.numbers, "return_by_member": fields.numbers},
    others=fields.number,
)
"""A line of `metrics.jsonl`."""
SWEPT = fields.record({}, others=fields.number)
REPORT = {"returns": fields.numbers, "task_scores": fields.nullable(fields.numbers)}
MEASURED = {"steps_to_threshold": fields.nullable(fields.number)}


def _reports(more: Mapping[str, fields.Check] = fields.NONE) -> fields.Check:
    return fields.listed(fields.record({**REPORT, **more}, MEASURED), "reports")


BASELINE = {"members": _reports(), "tuned": fields.record({})}
EVALUATION = fields.record(
    {
        **dict.fromkeys(("algorithm", "agent", "tasks", "split"), fields.text),
        **dict.fromkeys(("train_seed", "meta_env_steps", "seed", "num_tasks", "env_steps"), fields.whole(0)),
        "settings": fields.record({}),
        **REPORT,
        "baselines": fields.record({}, others=fields.record(REPORT, MEASURED | BASELINE)),
    },
    {
        **MEASURED,
        "best": fields.flag,
        "tasks_seen": fields.nullable(fields.flag),
        "sees_context": fields.flag,
        **dict.fromkeys(("seconds", "flops", "memory"), fields.nullable(fields.number)),
        "members": _reports({"seed": fields.whole(0), "hyperparams": SWEPT}),
    },
)
"""What of `evaluation.json` evaluations are compared by."""


@dataclass(frozen=True)
class RunDirectory:
    """Where a run keeps what it did."""

    path: Path

    def __post_init__(self):
        require_possible("run_dir", self.path)

    @property
    def config(self) -> Path:
        """The whole configuration, with versions and device."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """A line for each log point."""
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Orbax checkpoints, a folder for each step."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The latest evaluation."""
        return self.path / "evaluation.json"

    def picture(self, name: str) -> Path:
        """A PNG, `training` or `adaptation`."""
        return self.path / f"{name}.png"

    def require_unused(self) -> None:
        """Raises UsageError where a new run would overwrite what is there."""
        used = self.path.is_file() or (self.path.is_dir() and any(path.name != LOCK for path in self.path.iterdir()))
        require(not used, "run_dir", "be a new or empty folder, or be resumed", str(self.path))

    def require_writable(self) -> None:
        """Raises UsageError where the folder, or what it would be made in, cannot be written. Leaves nothing behind."""
        nearest = next(path for path in (self.path, *self.path.absolute().parents) if os.path.lexists(path))
        require_writable_folder("run_dir", WRITABLE, nearest, str(self.path))

    @contextlib.contextmanager
    def claimed(self, unused: bool) -> Iterator[None]:
        """Makes the folder if need be, and keeps every other process from training in it.

        The operating system opens the lock of a process that is killed.

        Args:
          unused: whether the folder must be new or empty.

        Raises:
          UsageError: another process has it, it is in use, or it cannot be made or written.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / LOCK)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError("run_dir", "not be in use by another process", str(self.path)) from None
        except OSError as error:
            raise _refusal("run_dir", WRITABLE, str(self.path), error) from None
        try:
            if unused:
                self.require_unused()
            yield
        finally:
            lock.release()

    def load_config(self) -> dict[str, Any]:
        """Raises UsageError where the folder holds no run."""
        require(self.config.is_file(), "run_dir", "be the folder of a run, with a config.json", str(self.path))
        config = read_json(self.config)
        CONFIG(repr(str(self.config)), config)
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        """Makes the folder, if need be."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.config, config)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The log points so far, oldest first; a last line that a crash cut short is left out.

        Raises:
          UsageError: the file holds something else.
        """
        if not self.metrics.is_file():
            return []
        lines = _read_text(self.metrics).split("\n")[:-1]  # a line that is whole ends
        records = []
        for number, line in enumerate(lines, 1):
            where = f"Line {number} of {str(self.metrics)!r}"
            records.append(_from_json(where, line))
            LOG_POINT(where, records[-1])
        return records

    def load_evaluation(self) -> dict[str, Any]:
        """Raises UsageError where the folder holds no evaluation of a run."""
        self.load_config()
        rule = "hold an evaluation (jaxmeta evaluate writes it)"
        require(self.evaluation.is_file(), "run_dir", rule, str(self.path))
        evaluation = read_json(self.evaluation)
        EVALUATION(repr(str(self.evaluation)), evaluation)
        return evaluation


def default_run_dir(config: dict[str, Any]) -> Path:
    """`runs/<algorithm>-<agent>-<tasks>-seed<seed>`, in characters that every file system takes; without the agent
    where the algorithm has none.

    >>> settings = {"agent": {"type": "dqn"}}
    >>> str(default_run_dir({"algorithm": "maml", "tasks": "bandit:arms=5", "seed": 1, "settings": settings}))
    'runs/maml-dqn-bandit_arms=5-seed1'
    >>> str(default_run_dir({"algorithm": "rl2", "tasks": "maze", "seed": 0, "settings": {}}))
    'runs/rl2-maze-seed0'
    """
    agent = flattened(config["settings"]).get("agent")
    whose = multi_seed.described(config).replace(", ", "-").replace(" ", "")
    parts = [config["algorithm"], *([agent] if agent else []), config["tasks"], whose]
    return Path("runs") / re.sub(r"[^A-Za-z0-9_.=,-]", "_", "-".join(parts))


def read_json(path: Path) -> Any:
    """Raises UsageError where the file is not JSON."""
    return _from_json(repr(str(path)), _read_text(path))


def write_json(path: Path, content: Any) -> None:
    """Replaces a file atomically: readers see the old content or the new."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def require_possible(argument: str, path: Path) -> None:
    """Raises UsageError for a path that the file system has no place for, such as one with too long a name."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise _refusal(argument, "be a possible path", str(path), error) from None


def require_writable_folder(argument: str, rule: str, folder: Path, value: str) -> None:
    """Raises UsageError where nothing can be made in a folder that exists; says the operating system's reason.

    Permissions say nothing for root or in `/proc`, so a folder is made inside and removed again.
    """
    require(folder.is_dir(), argument, rule, value)
    try:
        before = folder.stat()
        os.rmdir(tempfile.mkdtemp(prefix=".jaxmeta-", dir=folder))
    except OSError as error:
        raise _refusal(argument, rule, value, error) from None
    with contextlib.suppress(OSError):  # who may write there need not be its owner
        os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))


def write_text(path: Path, text: str) -> None:
    """Replaces a file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _refusal(argument: str, rule: str, value: str, error: Exception) -> UsageError:
    reason = getattr(error, "strerror", None) or str(error)
    return UsageError(argument, rule, value, reason=reason)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise UsageError(repr(str(path)), "be text in UTF-8", Words("other bytes"), reason=reason) from None


def _from_json(where: str, line: str) -> Any:
    try:
        return json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(where, "be JSON", Words("other text"), reason=str(error)) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not in JSON")
