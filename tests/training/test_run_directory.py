"""The folder of a run, its journal, progress lines and interrupts."""

import errno
import io
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from rich.console import Console

from jaxmeta.core.errors import UsageError
from jaxmeta.reporting import progress
from jaxmeta.training import interrupts
from jaxmeta.training import run_directory as runs
from jaxmeta.training.metrics_log import Journal
from jaxmeta.training.run_directory import RunDirectory

CONFIG = {"algorithm": "maml", "tasks": "probe", "seed": 0, "meta_steps": 4, "settings": {}}


def record(meta_step, **metrics):
    return {
        "meta_step": meta_step,
        "env_steps": 10 * meta_step,
        "seconds": float(meta_step),
        "loss": 0.5,
        "return": 0.0,
        **metrics,
    }


def test_json_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "content.json"
    runs.write_json(path, {"score": 1.0})
    with pytest.raises(ValueError, match="Out of range float"):
        runs.write_json(path, {"score": float("nan")})
    assert runs.read_json(path) == {"score": 1.0}
    assert os.listdir(tmp_path) == ["content.json"]


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "content.json"
    runs.write_json(path, "old")

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        runs.write_json(path, "new")
    assert runs.read_json(path) == "old"
    assert os.listdir(tmp_path) == ["content.json"]


def test_config_round_trips(tmp_path):
    run = RunDirectory(tmp_path / "deep" / "run")
    run.write_config(CONFIG)
    assert run.load_config() == CONFIG


@pytest.mark.parametrize("content", ["{", "{}", '{"algorithm": "maml"}', "[]"])
def test_a_config_that_composes_no_run_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match=r"config\.json"):
        RunDirectory(tmp_path).load_config()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"algorithm": None}, "algorithm must be a string, got None."),
        ({"tasks": ["probe"]}, "tasks must be a string, got ['probe']."),
        ({"seed": -1}, "seed must be an integer from 0 to 2147483647, got -1."),
        ({"meta_steps": True}, "meta_steps must be an integer from 1 to 2147483647, got True."),
        ({"settings": []}, "settings must hold an object, got []."),
        ({"device": {"kind": "cpu"}}, "device must hold platform, kind, count, got 'one without platform, count'."),
        ({"seed": float("nan")}, "must be JSON, got other text (NaN is not in JSON)."),
    ],
)
def test_fields_of_another_kind_are_named(tmp_path, changed, sentence):
    run = RunDirectory(tmp_path)
    run.config.write_text(json.dumps({**CONFIG, **changed}))
    with pytest.raises(UsageError) as refused:
        run.load_config()
    assert str(refused.value) == f"{str(run.config)!r} {sentence}"


def test_log_points_of_another_kind_are_refused(tmp_path):
    run = RunDirectory(tmp_path)
    whole = json.dumps(record(1)) + "\n"
    for line, sentence in (
        ("{", "must be JSON"),
        ("[]", "must hold an object"),
        ('{"loss": 1}', "must hold meta_step"),
    ):
        run.metrics.write_text(f"{whole}{line}\n{whole}")
        with pytest.raises(UsageError, match=f"^Line 2 of .* {sentence}"):
            run.read_metrics()


def test_folders_in_use_are_refused(tmp_path):
    RunDirectory(tmp_path / "new").require_unused()
    RunDirectory(tmp_path).require_unused()
    file = tmp_path / "file"
    file.touch()
    for used in (tmp_path, file):
        with pytest.raises(UsageError, match="run_dir must be a new or empty folder"):
            RunDirectory(used).require_unused()
    with pytest.raises(UsageError, match="run_dir must be a folder that can be written"):
        RunDirectory(file / "run").require_writable()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
@pytest.mark.parametrize("path", ["/proc/nope", "/proc/nope/deeper"])
def test_a_folder_that_the_system_does_not_make_is_refused(path):
    with pytest.raises(UsageError) as refused:
        RunDirectory(Path(path)).require_writable()
    assert str(refused.value).startswith(f"run_dir must be a folder that can be written, got {path!r} (")


def test_a_folder_that_can_be_written_is_left_as_it_was(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    for path in (tmp_path, tmp_path / "new", tmp_path / "deep" / "run"):
        RunDirectory(path).require_writable()
    assert not list(tmp_path.iterdir())
    assert tmp_path.stat().st_mtime_ns == before


def test_a_folder_that_cannot_be_written_is_refused_with_the_reason(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "else")
    with pytest.raises(UsageError, match="run_dir must be a folder that can be written"):
        RunDirectory(tmp_path / "dangling").require_writable()
    monkeypatch.setattr(os, "mkdir", refuse)
    run = RunDirectory(tmp_path / "new")
    for attempt in (run.require_writable, run.claimed(unused=True).__enter__):
        with pytest.raises(UsageError, match=r"^run_dir must be a folder that .* \(Read-only file system\)\.$"):
            attempt()


def test_default_run_dirs_are_safe_names():
    config = {"algorithm": "rl2", "tasks": "../a b:c=1,d=/x", "seed": 3, "settings": {}}
    assert str(runs.default_run_dir(config)) == os.path.join("runs", "rl2-.._a_b_c=1,d=_x-seed3")
    for settings in ({"agent": {"type": "dqn", "double": True}}, {"agent": "dqn", "agent.double": True}):
        config = {"algorithm": "maml", "tasks": "maze", "seed": 0, "settings": settings}
        assert str(runs.default_run_dir(config)) == os.path.join("runs", "maml-dqn-maze-seed0")


def test_a_journal_goes_on_from_a_step_and_counts_on(tmp_path):
    run = RunDirectory(tmp_path)
    with Journal(run, 0) as journal:
        assert journal.seconds == 0.0
        for step in (1, 2, 3):
            journal.write(record(step, loss=0.5))
    run.metrics.write_text(run.metrics.read_text() + '{"meta_st')
    with Journal(run, 2) as journal:
        assert journal.seconds == 2.0
        journal.write(record(3, loss=0.25))
    assert run.read_metrics() == [record(1, loss=0.5), record(2, loss=0.5), record(3, loss=0.25)]
    assert len(list(run.events.glob("events*"))) == 2


def test_lines_are_valid_json_one_each(tmp_path):
    with Journal(RunDirectory(tmp_path), 0) as journal:
        journal.write(record(1))
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()  # flushed while the journal is open
    assert [json.loads(line) for line in lines] == [record(1)]


def test_progress_prints_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    with progress.reporting(4, Console(file=out, width=20)) as on_log:
        on_log({**record(1, loss=0.5, **{"return": -1.0}), "env_steps_per_second": 10.0})
    assert out.getvalue() == "meta-step 1/4  loss 0.5  return -1  10 env steps/s  0:03 left\n"


def test_progress_draws_a_bar_on_a_terminal():
    out = io.StringIO()
    with progress.reporting(4, Console(file=out, width=100, force_terminal=True)) as on_log:
        on_log({**record(3, loss=0.5), "env_steps_per_second": 0.0})
    assert "3/4" in out.getvalue()
    assert "loss 0.5" in out.getvalue()


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_the_first_signal_raises_a_flag_and_the_second_an_exception(number, capfd):
    before = signal.getsignal(number)
    with interrupts.deferred() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
    assert "once more stops at once" in capfd.readouterr().err


def test_sigterm_ends_a_program_as_ctrl_c_does():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupts.terminable():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_have_no_signals_and_still_work():
    seen = []

    def work():
        with interrupts.deferred() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_folder_is_claimed_once_at_a_time(tmp_path):
    with (
        RunDirectory(tmp_path).claimed(unused=True),
        pytest.raises(UsageError, match="run_dir must not be in use by another process"),
        RunDirectory(tmp_path).claimed(unused=False),
    ):
        pass
    with RunDirectory(tmp_path).claimed(unused=True):
        pass
