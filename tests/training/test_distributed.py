"""Two processes train one run together; one is killed, both are started again, and nothing is different."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from jaxmeta.training.run_directory import RunDirectory
from tests.records import digest, reported

META_STEPS = 400
TRAIN = [
    *(sys.executable, "-m", "jaxmeta.cli", "train", "maml", "probe", "--run-dir", "run"),
    *("--set", "hidden=4", "num_envs=2", "tasks_per_batch=2", "num_adaptations=1", "num_query_envs=2"),
    *("--set", "lifetimes_per_task=1"),
    *("--meta-steps", str(META_STEPS), "--log-every", "5", "--checkpoint-every", "10", "--num-processes", "2"),
]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """`start(folder, *options)` starts both processes, which meet at a port that is free."""
    cache = str(tmp_path_factory.mktemp("compiled"))
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache, "JAX_PLATFORMS": "cpu"}
    started = []

    def start_both(folder, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            meeting = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", *options]
        both = []
        for index in range(2):
            with (folder / f"{index}.log").open("w") as log:
                argv = [*TRAIN, *meeting, "--process-id", str(index)]
                both.append(subprocess.Popen(argv, cwd=folder, env=environment, stdout=log, stderr=log))
        started.extend(both)
        return both

    yield start_both
    for process in started:
        process.kill()
        process.wait()


def finish(folder, both):
    for index, process in enumerate(both):
        assert process.wait(timeout=240) == 0, (folder / f"{index}.log").read_text()[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_which_one_is_killed_end_as_if_nothing_had_happened(tmp_path, start):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    finish(undisturbed, start(undisturbed))
    assert json.loads((undisturbed / "run" / "config.json").read_text())["devices"] == 2

    both = start(disturbed)
    metrics = disturbed / "run" / "metrics.jsonl"
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < 6:
        assert all(process.poll() is None for process in both)
        time.sleep(0.01)
    both[1].kill()
    both[1].wait()
    time.sleep(0.5)
    both[0].kill()  # as a scheduler does when a part of a job has died
    both[0].wait()
    reached = len(RunDirectory(disturbed / "run").read_metrics()) * 5
    assert 0 < reached < META_STEPS

    finish(disturbed, start(disturbed, "--resume"))
    ended = [(digest(folder / "run"), reported(folder / "run")) for folder in (disturbed, undisturbed)]
    assert ended[0] == ended[1]
