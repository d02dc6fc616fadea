"""What a run tells as it goes, without what depends on the clock, and how to stop it there."""

import signal

from jaxmeta.training import checkpoints, jobs
from jaxmeta.training.run_directory import RunDirectory

TIMING = ("seconds", "env_steps_per_second")


def without_timing(records):
    """The same log points without their times."""
    return [{name: value for name, value in record.items() if name not in TIMING} for record in records]


def reported(folder):
    """The log points of a run, each of them once, and whole."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = RunDirectory(folder).read_metrics()
    assert len(records) == len(lines)
    return without_timing(records)


def digest(folder, tasks=None):
    """Of the newest state of a run."""
    return checkpoints.state_digest(jobs.restore(folder, tasks)[1])


def interrupt_at(meta_step):
    """What Ctrl-C at a log point does, as `on_log` sees it."""

    def on_log(record):
        if record["meta_step"] == meta_step:
            signal.raise_signal(signal.SIGINT)

    return on_log
