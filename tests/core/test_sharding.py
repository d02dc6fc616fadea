"""Tasks spread over devices: the same results, and nothing exchanged but sums of gradients."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta.algorithms import registry
from jaxmeta.core import sharding as devices
from jaxmeta.outer import batching as batch
from jaxmeta.training import distributed as hosts
from jaxmeta.training import jobs
from tests import tiers
from tests.on_devices import VARIANTS

GROUPS = (
    ("maml", "fomaml", "anil", "meta_sgd"),
    ("rl2", "mann", "snail", "proximal"),
    ("reptile", "population", "hyper_policy", "finetune", "scratch"),
    ("learned_optimizer", "hypernetwork", "mapping"),
)
NEEDS_MORE = {
    "mapping": "every target attends to the whole bank",
    "finetune": "one learner learns from what was done in all tasks",
}
"""Algorithms whose devices exchange more than gradients, and why."""
CHANGES_NOTHING = ("scratch",)
ROOT = Path(__file__).parents[2]


def spread(group, counts):
    """What `on_devices` says of cases on so many devices, by case."""
    command = [sys.executable, str(ROOT / "tests" / "on_devices.py"), ",".join(map(str, counts)), *group]
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "envs")))}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr[-2000:]
    return {line["case"]: line for line in map(json.loads, answer.stdout.splitlines())}


def test_every_algorithm_is_looked_at():
    assert {name for group in GROUPS for name in group} == {*registry.ALGORITHMS, *VARIANTS}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("group", "counts"),
    [(("fomaml",), (1, 2)), *tiers.slow(*((group, (1, 2, 8)) for group in GROUPS))],
    ids=lambda values: "-".join(map(str, values)),
)
def test_devices_agree_and_exchange_one_sum_of_gradients_in_an_optimizer_step(group, counts):
    reported = spread(group, counts)
    assert set(reported) == set(group)
    for case, line in reported.items():
        assert line["apart"] < 1e-9, case
        gathered = [one for one in line["moved"] if one["kind"] != "all-reduce" and not one["flags_only"]]
        sums = [one for one in line["moved"] if one["kind"] == "all-reduce" and 2 * one["numbers"] > line["parameters"]]
        if case in NEEDS_MORE:
            assert gathered, f"{case} is listed without need"
        else:
            assert not gathered, case
            assert len(sums) == (case not in CHANGES_NOTHING), case


def test_what_devices_do_with_their_shares_is_averaged_and_groups_come_back_in_order(monkeypatch):
    monkeypatch.setattr(devices, "in_use", lambda: 2)
    monkeypatch.setattr(devices, "spread", lambda tree: tree)
    tasks = jnp.arange(12.0)
    assert float(batch.mean_over_shares(jnp.mean)(tasks)) == 5.5
    mean, kept, finite = batch.mean_over_tasks(lambda task: (task, -task), tasks_per_group=2)(tasks)
    assert float(mean) == pytest.approx(5.5)
    np.testing.assert_array_equal(kept, -tasks)
    assert finite.shape == (12,)


def test_one_device_is_no_mesh():
    assert devices.mesh_of(1) is None
    assert devices.in_use() == 1


@pytest.mark.parametrize(("tasks", "nearest"), [(10, "8 or 16"), (3, "8")])
def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_do(tasks, nearest):
    rule = f"^tasks_per_batch must be a multiple of devices = 8, such as {nearest}, got {tasks}.$"
    with pytest.raises(jaxmeta.UsageError, match=rule):
        devices.require_even(tasks, 8)


def test_more_devices_than_there_are_are_refused():
    with pytest.raises(jaxmeta.UsageError, match=f"^devices must be from 1 to {jax.device_count()}, got 99.$"):
        jobs.prepare("scratch", "probe", devices=99)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (("host:1", None, 0), "coordinator must come with num_processes and process_id, and they with it, got "),
        ((None, 2, 0), "coordinator must come with num_processes and process_id, and they with it, got "),
        (("host", 2, 0), "coordinator must be HOST:PORT, got 'host'."),
        (("host:port", 2, 0), "coordinator must be HOST:PORT, got 'host:port'."),
        (("host:99999", 2, 0), "coordinator must be HOST:PORT, got 'host:99999'."),
        (("host:1", 2, 2), "process_id must be below num_processes = 2, got 2."),
    ],
)
def test_processes_that_could_not_find_each_other_are_refused(given, sentence):
    with pytest.raises(jaxmeta.UsageError) as refused:
        hosts.join(*given)
    assert str(refused.value).startswith(sentence)


def test_a_process_alone_joins_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: pytest.fail("there is nobody to join"))
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    hosts.join(None, None, None)


@pytest.mark.parametrize(
    "names",
    [{"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, {"TPU_WORKER_HOSTNAMES": "a,b"}],
    ids=["slurm", "pod"],
)
def test_a_cluster_is_noticed(monkeypatch, names):
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given: joined.append(given))
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    hosts.join(None, None, None)
    assert joined == [()]


@pytest.mark.slow
def test_nothing_asks_for_a_device_before_processes_have_joined():
    code = """
import jaxmeta.cli.commands
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
