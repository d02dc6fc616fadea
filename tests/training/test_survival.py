"""What a run survives: being killed at any moment, being told to stop, a checkpoint damaged afterwards, a full disk.

Runs are processes of their own, forked from one that has imported everything and done nothing yet.
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta.core.types import TaskDistribution
from jaxmeta.training import checkpoints, jobs
from tests import records, tiers
from tests.conftest import tiny
from tests.records import reported
from tests.toy import CentreEnv


class Lever(CentreEnv):
    """Pays for one of its two actions, which of them its centre says; an episode is five steps long."""

    def step(self, key, state, action, params):
        """Takes a step."""
        shown, steps, _, terminated, _, info = super().step(key, state, action, params)
        paid = jnp.where((action == 1) == (params[0] > 0), 1.0, 0.0)
        over = steps == 5
        return shown, jnp.where(over, 0, steps), paid, terminated, over, info

    def observation_space(self, params):
        """Not discrete."""
        return None


LEVERS = TaskDistribution(Lever(), lambda key, split: jax.random.normal(key, (2,)), horizon=5, name="levers")
"""Free of gymnax, which starts JAX's backend as it is imported: a process that has done so must not fork."""
RUN = {"algorithm": "maml", "tasks": LEVERS, "settings": tiny("maml")}
RUN |= {"meta_steps": 120, "log_every": 2, "checkpoint_every": 4}
IDLE = {"algorithm": "scratch", "tasks": LEVERS, "settings": tiny("scratch")}
IDLE |= {"meta_steps": 12, "log_every": 1, "checkpoint_every": 2}
"""A run whose meta-steps do nothing."""
KILLED_AT = random.Random(0)
NOBODY = 65534

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [__name__, "jaxmeta.reporting.run", "orbax.checkpoint", "tensorboardX.event_file_writer"]
)


def work(run_dir: str, cache: str, resume: bool, slowly: float) -> None:
    """Trains, a little slower than it could; exits with 130 where it was told to stop."""
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    hooks = jaxmeta.Hooks(on_log=lambda record: time.sleep(slowly))
    try:
        jaxmeta.train(run_dir=run_dir, resume=resume, hooks=hooks, **RUN)
    except KeyboardInterrupt:
        os._exit(130)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Programs that were compiled already."""
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cache):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run_to_the_end(folder, cache, resume=False)
    return folder


def run_to_the_end(folder, cache, resume=True):
    process = CONTEXT.Process(target=work, args=(str(folder), cache, resume, 0.0))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == 0


digest = functools.partial(records.digest, tasks=LEVERS)


def newest(folder):
    """The step of the newest checkpoint, 0 where there is none."""
    steps = [int(path.name) for path in (folder / "checkpoints").glob("*") if path.name.isdigit()]
    return max(steps, default=0)


def wait_for_progress(process, folder, log_points):
    """Until the run has told as much more than it had, or has ended."""
    metrics, told_before = folder / "metrics.jsonl", None
    while process.is_alive():
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        told_before = lines if told_before is None else min(told_before, lines)
        if lines > told_before + log_points:
            return
        time.sleep(0.005)


def test_a_run_that_is_killed_and_resumed_ends_as_if_nothing_had_happened(tmp_path, cache, undisturbed):
    folder = tmp_path / "run"
    process = CONTEXT.Process(target=work, args=(str(folder), cache, False, 0.03))
    process.start()
    while newest(folder) < RUN["checkpoint_every"]:
        assert process.is_alive()
        time.sleep(0.005)
    process.kill()
    process.join(timeout=60)
    assert process.exitcode == -signal.SIGKILL
    assert 0 < newest(folder) < RUN["meta_steps"]
    run_to_the_end(folder, cache)
    assert digest(folder) == digest(undisturbed)
    assert reported(folder) == reported(undisturbed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_twenty_interruptions_change_nothing(tmp_path, cache, undisturbed, number):
    folder, interrupted = tmp_path / "run", 0
    while interrupted < 20:
        process = CONTEXT.Process(target=work, args=(str(folder), cache, folder.exists(), 0.03))
        process.start()
        if interrupted % 5:  # every fifth time perhaps before the run has begun
            wait_for_progress(process, folder, KILLED_AT.randrange(8))
        process.join(timeout=KILLED_AT.uniform(0.0, 0.1))
        before = newest(folder)
        with contextlib.suppress(ProcessLookupError):  # it may have ended in this very moment
            os.kill(process.pid, number)
        process.join(timeout=60)
        if process.exitcode == 0:  # it was done
            assert digest(folder) == digest(undisturbed)
            shutil.rmtree(folder)
            continue
        assert process.exitcode in (-signal.SIGKILL, -signal.SIGTERM, 130)
        interrupted += 1
        assert newest(folder) >= before
        if folder.exists() and not (folder / "config.json").exists():
            shutil.rmtree(folder)  # killed between the two
    run_to_the_end(folder, cache)
    assert digest(folder) == digest(undisturbed)
    assert reported(folder) == reported(undisturbed)


@pytest.mark.slow
def test_one_run_directory_belongs_to_one_process(tmp_path, cache):
    folder = tmp_path / "run"
    process = CONTEXT.Process(target=work, args=(str(folder), cache, False, 0.5))
    process.start()
    try:
        while not (folder / "metrics.jsonl").exists():
            time.sleep(0.05)
            assert process.is_alive()
        with pytest.raises(jaxmeta.UsageError, match=r"^run_dir must not be in use by another process, got '"):
            jaxmeta.train(tasks=LEVERS, run_dir=folder, resume=True)
    finally:
        process.kill()
        process.join()
    run_to_the_end(folder, cache)  # a process that was killed leaves no lock behind


def flip(path: Path, chance: random.Random) -> None:
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def files(folder: Path) -> list[Path]:
    """Files of a checkpoint that hold something."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


@pytest.fixture
def finished(tmp_path, undisturbed):
    """A copy of a finished run."""
    return Path(shutil.copytree(undisturbed, tmp_path / "run"))


@pytest.mark.parametrize("bits", [1, *tiers.slow(100)])
def test_every_flipped_bit_is_seen(finished, undisturbed, caplog, bits):
    chance, last = random.Random(1), finished / "checkpoints" / str(RUN["meta_steps"])
    like = jax.eval_shape(jobs.restore(finished, LEVERS)[0].init, jax.random.key(0))
    previous = sorted(checkpoints.finished_steps(finished / "checkpoints"))[-2]
    for _ in range(bits):
        path = chance.choice(files(last))
        sound = path.read_bytes()
        flip(path, chance)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "jaxmeta"):
            state = checkpoints.restore(finished / "checkpoints", like)
        assert int(state.step) == previous, path
        assert f"Checkpoint {last.name} in " in caplog.text
        path.write_bytes(sound)
    assert digest(finished) == digest(undisturbed)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_goes_on_from_the_newest_checkpoint_that_is_sound(finished, undisturbed, cache, caplog):
    chance = random.Random(2)
    last = finished / "checkpoints" / str(RUN["meta_steps"])

    def check(folder):
        with caplog.at_level(logging.WARNING, "jaxmeta"):
            caplog.clear()
            run_to_the_end(folder, cache)
        assert digest(folder) == digest(undisturbed)
        assert reported(folder) == reported(undisturbed)

    for harm in (lambda path: flip(path, chance), truncate, empty, remove):
        harm(chance.choice(files(last)))
        check(finished)
    shutil.rmtree(last)
    last.mkdir()
    check(finished)
    assert len(list((finished / "checkpoints-damaged").iterdir())) == 5, "nothing damaged is deleted"


@pytest.mark.slow
def test_where_no_checkpoint_is_sound_a_run_stops_and_deletes_nothing(finished):
    chance = random.Random(3)
    for step in checkpoints.finished_steps(finished / "checkpoints"):
        flip(chance.choice(files(finished / "checkpoints" / str(step))), chance)
    before = {path: path.read_bytes() for path in files(finished)}
    with pytest.raises(jaxmeta.CheckpointError, match="can be trusted"):
        jaxmeta.train(tasks=LEVERS, run_dir=finished, resume=True)
    assert {path: path.read_bytes() for path in files(finished)} == before


class FullDisk:
    """From one log point to another no file may grow beyond a few bytes."""

    def __init__(self, start, end):
        self.start, self.end = start, end
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def __call__(self, record):
        if record["meta_step"] == self.start:
            resource.setrlimit(resource.RLIMIT_FSIZE, (64, self.limits[1]))
        if record["meta_step"] == self.end:
            resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


@pytest.fixture
def readable():
    """A folder that every user can look into, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def test_a_disk_that_is_full_for_a_while_costs_no_more_than_its_checkpoints(tmp_path, caplog):
    options = IDLE
    sound = jaxmeta.train(run_dir=tmp_path / "sound", **options).state
    with caplog.at_level(logging.WARNING, "jaxmeta"):
        state = jaxmeta.train(run_dir=tmp_path / "run", hooks=jaxmeta.Hooks(on_log=FullDisk(5, 9)), **options).state
    assert "could not be written" in caplog.text
    assert "Training goes on." in caplog.text
    assert checkpoints.state_digest(state) == checkpoints.state_digest(sound)
    assert digest(tmp_path / "run") == digest(tmp_path / "sound")
    assert reported(tmp_path / "run") == reported(tmp_path / "sound")


class ReadOnly:
    """From one log point to another nothing can be made, renamed or deleted in a folder.

    The superuser may write anywhere, and is somebody else for as long.
    """

    def __init__(self, folder, start, end):
        self.folder, self.start, self.end = folder, start, end
        self.superuser = os.geteuid() == 0

    def __call__(self, record):
        if record["meta_step"] == self.start:
            while not (self.folder / "checkpoints" / str(self.start - 1)).exists():
                time.sleep(0.01)  # threads that write it would wait for minutes
            self.permit(0o555)
            if self.superuser:
                os.seteuid(NOBODY)
        if record["meta_step"] == self.end:
            self.give_back()

    def give_back(self):
        """Makes the folder writable again."""
        if self.superuser:
            os.seteuid(0)
        self.permit(0o755)

    def permit(self, mode):
        for path in (self.folder, *self.folder.rglob("*")):
            if path.is_dir():
                path.chmod(mode)


def test_a_folder_that_turns_read_only_costs_no_more_than_its_checkpoints(readable, caplog):
    options = IDLE
    sound = jaxmeta.train(**options).state
    folder, before = readable / "run", threading.enumerate()
    mishap = ReadOnly(folder, 5, 9)
    try:
        with caplog.at_level(logging.WARNING, "jaxmeta"):
            state = jaxmeta.train(run_dir=folder, hooks=jaxmeta.Hooks(on_log=mishap), **options).state
    finally:
        mishap.give_back()
    assert "could not be written" in caplog.text
    assert "Training goes on." in caplog.text
    assert checkpoints.state_digest(state) == checkpoints.state_digest(sound)
    assert digest(folder) == checkpoints.state_digest(sound)
    assert [record["meta_step"] for record in reported(folder)] == list(range(1, 13))
    for thread in set(threading.enumerate()) - set(before):
        thread.join(timeout=20)
        assert thread.daemon or not thread.is_alive(), "the process would wait for it"


def test_a_run_may_be_asked_to_stop_where_the_disk_is_full(tmp_path):
    options = IDLE
    disk = FullDisk(6, 99)
    try:
        with pytest.raises(jaxmeta.StorageError, match="could not be written"):
            jaxmeta.train(run_dir=tmp_path / "run", hooks=jaxmeta.Hooks(on_log=disk), on_write_error="stop", **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, disk.limits)
    state = jobs.restore(tmp_path / "run", LEVERS)[1]
    assert int(state.step) in (4, 6), "the latter if its file was quicker than the fault"
    again = jaxmeta.train(tasks=LEVERS, run_dir=tmp_path / "run", resume=True).state
    assert int(again.step) == 12
    assert np.all(np.diff([record["meta_step"] for record in reported(tmp_path / "run")]) == 1)
