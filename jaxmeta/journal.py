"""What a run tells while it trains: a line of JSON for each log point, and the same for TensorBoard."""

import json
from typing import Any

from jaxmeta.runs import RunDirectory, write_text


class Journal:
    """Appends log points to a run's `metrics.jsonl` and TensorBoard events. A context manager."""

    def __init__(self, run: RunDirectory, step: int):
        """Opens the journal at a meta-step: what was written beyond it is dropped."""
        from tensorboardX import SummaryWriter

        kept = [record for record in run.read_metrics() if record["meta_step"] <= step]
        write_text(run.metrics, "".join(map(_line, kept)))
        self.seconds: float = kept[-1]["seconds"] if kept else 0.0
        """Time that the kept log points took."""
        self._file = run.metrics.open("a", encoding="utf-8")
        # The suffix keeps a run that is resumed within the same second from overwriting its own events.
        self._events = SummaryWriter(str(run.events), purge_step=step + 1, filename_suffix=f".{step}")

    def write(self, record: dict[str, Any]) -> None:
        """Adds a log point, at once and for good."""
        self._file.write(_line(record))
        self._file.flush()
        for name, value in record.items():
            if name != "meta_step":
                self._events.add_scalar(name, value, record["meta_step"])
        self._events.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
        self._events.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
