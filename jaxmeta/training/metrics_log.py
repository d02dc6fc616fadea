"""The metrics of a run: a line of JSON for each log point, and the same for TensorBoard."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from jaxmeta.core.errors import StorageError
from jaxmeta.training.run_directory import RunDirectory, write_text


class Journal:
    """Appends log points to a run's `metrics.jsonl` and TensorBoard events. A context manager.

    Of metrics by member, events hold the means alone.
    Nothing is lost to a disk that is full for a while: what could not be written is written with the next log point.
    """

    def __init__(self, run: RunDirectory, step: int):
        """Opens the journal at a meta-step: what was written beyond it is dropped."""
        kept = [record for record in run.read_metrics() if record["meta_step"] <= step]
        write_text(run.metrics, "".join(map(_line, kept)))
        self.seconds: float = kept[-1]["seconds"] if kept else 0.0
        """Time that the kept log points took."""
        self._run, self._step = run, step
        self._file = run.metrics.open("ab", buffering=0)
        self._unwritten = b""
        self._events: _Events | None = None

    def write(self, record: dict[str, Any]) -> None:
        """Adds a log point, at once and for good.

        Raises:
          StorageError: it could not be written, and will be with the next one.
        """
        self._unwritten += _line(record).encode()
        self.flush()
        with self._telling():
            self._events = self._events or _Events(self._run, self._step)
            self._events.write(record)
        self._step = record["meta_step"]

    def flush(self) -> None:
        """Writes what could not be written before.

        Raises:
          StorageError: it still cannot.
        """
        with self._telling():
            while self._unwritten:  # a disk that fills up may take a part
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._close_events()  # whose last record may be torn: the next one starts another file
            raise StorageError(f"{str(self._run.path)!r} could not be written: {error.strerror}.") from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends both files."""
        self._file.close()
        self._close_events()

    def _close_events(self) -> None:
        events, self._events = self._events, None
        if events:
            with contextlib.suppress(OSError):  # reported when it was written
                events.close()


class _Events:
    """A file of TensorBoard events, written in the foreground: tensorboardX's own thread ends where a disk is full, and
    lets its owner wait for ever.
    """

    def __init__(self, run: RunDirectory, step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]

        run.events.mkdir(exist_ok=True)
        # The suffix keeps a run that is resumed within the same second from overwriting its own events.
        self._writer = EventsWriter(str(run.events / "events"), f".{step}.{os.getpid()}")
        start = SessionLog(status=SessionLog.START)  # events of an earlier run beyond this step no longer hold
        self._writer.write_event(Event(wall_time=time.time(), step=step + 1, session_log=start))

    def write(self, record: dict[str, Any]) -> None:
        """Adds a log point."""
        from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
        from tensorboardX.summary import scalar

        for name, value in record.items():
            if name != "meta_step" and not isinstance(value, list):
                reported = scalar(name, value)
                self._writer.write_event(Event(wall_time=time.time(), step=record["meta_step"], summary=reported))
        self._writer.flush()

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
