"""What a run writes while it trains: its log points and its checkpoints, and what becomes of what cannot be written."""

import logging
from collections.abc import Callable
from typing import Any

from jaxmeta.core.errors import StorageError
from jaxmeta.core.types import MetaState
from jaxmeta.training import distributed as hosts
from jaxmeta.training.checkpoints import Keeper, finished_steps, set_aside
from jaxmeta.training.metrics_log import Journal
from jaxmeta.training.run_directory import RunDirectory

BEST_BY = "return"
"""The metric whose highest value makes a checkpoint the best."""

_log = logging.getLogger(__name__)


class Bookkeeping:
    """Takes down log points, and now and then a checkpoint. A context manager.

    Of several processes the first writes configuration and log points, and all take part in checkpoints.

    A failed write is reported at once. It ends the run if its configuration says so; else it is tried again at
    the next log point, or with the next checkpoint. At the end everything must have been written.

    Args:
      run: the folder, which this process has claimed.
      config: of the run; it is written first.
      step: meta-steps taken; what the folder holds beyond them is put aside.
    """

    def __init__(self, run: RunDirectory, config: dict[str, Any], step: int):
        set_aside(run.checkpoints, newer_than=step)
        if hosts.is_first():
            run.write_config(config)
        hosts.wait_for_all("the run directory is ready")
        self._run, self._config = run, config
        self._journal = Journal(run, step) if hosts.is_first() else None
        self._keeper = Keeper(run.checkpoints, config["keep"])
        self._step, self._score = step, None
        self.seconds = self._journal.seconds if self._journal else 0.0
        """Time that training took before."""

    def log_point(self, state: MetaState, record: dict[str, Any]) -> None:
        """Takes down a log point; its state may be donated afterwards.

        Raises:
          StorageError: something could not be written, and the run is to end there.
        """
        every = self._config["checkpoint_every"]
        due = record["meta_step"] // every > self._step // every
        self._step, self._score = record["meta_step"], record.get(BEST_BY)
        if journal := self._journal:
            self._attempt(lambda: journal.write(record))
        self._attempt(lambda: self._keeper.settle(wait=due))
        if due:
            self._attempt(lambda: self._keeper.save(state, self._score))

    def finish(self, state: MetaState) -> None:
        """Saves the last state, if that has not been done, and waits until everything is on disk.

        Raises:
          StorageError: something could not be written.
        """
        if self._journal:
            self._journal.flush()
        self._attempt(lambda: self._keeper.settle(wait=True))
        if self._step not in finished_steps(self._run.checkpoints):
            self._keeper.save(state, self._score)
            self._keeper.settle(wait=True)

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
        except StorageError as error:
            if self._config["on_write_error"] == "stop":
                raise
            _log.warning("%s Training goes on.", error)

    def __enter__(self) -> "Bookkeeping":
        self._keeper.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._keeper.__exit__(*exception)
        if self._journal:
            self._journal.close()
