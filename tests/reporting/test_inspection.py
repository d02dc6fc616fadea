"""What is told of a run and of a plan: each number beside one that is known without it."""

import contextlib
import hashlib
import itertools
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

import jaxmeta
from jaxmeta.cli.main import main
from jaxmeta.core import compilation_cache
from jaxmeta.core.config import AlgorithmConfig
from jaxmeta.core.types import MetaState, StepInfo
from jaxmeta.reporting import inspection
from jaxmeta.training import checkpoints, jobs
from tests import learners

PLAN = ["inspect", "--plan", "products", "probe", "--meta-steps", "6"]
BOTH = {"config", "changed_settings", "parameters", "parameters_by_part", "env_steps_per_meta_step"}
BOTH |= {"flops_per_meta_step", "memory", "devices", "members"}
OF_RUN = {"run_dir", "meta_step", "state_digest", "last_log_point", "checkpoints", "checkpoints_damaged"}
OF_PLAN = {"env_steps", "flops", "checkpoint_bytes", "compile_seconds", "timed_meta_steps", "seconds_per_meta_step"}
OF_PLAN |= {"estimated_seconds"}
PRODUCTS, ROWS, INNER, COLUMNS = 7, 4, 3, 5
LARGE = 300
SLEEPS, FIRST_SLEEP = 0.05, 0.5


def learner_of(config, update, meta):
    """A learner that keeps nothing but its meta."""

    def step(key, state):
        metrics = {"loss": jnp.zeros(()), "return": jnp.zeros(())}
        return state.replace(meta=update(key, state.meta), step=state.step + 1), StepInfo(metrics)

    start = MetaState(meta=meta, optimizer=(), step=jnp.zeros((), jnp.int32), aux_state=None)
    return learners.learner_of(config, lambda key: start, step)


def products(tasks, config: AlgorithmConfig = AlgorithmConfig()):
    """A learner whose meta-step is a known number of small matrix products."""

    def update(key, meta):
        left, right = jax.random.normal(key, (ROWS, INNER)), jax.random.normal(key, (INNER, COLUMNS))
        table, _ = jax.lax.scan(lambda table, _: (0.5 * table + left @ right, None), meta["table"], length=PRODUCTS)
        return {**meta, "table": table}

    return learner_of(config, update, {"table": jnp.zeros((ROWS, COLUMNS)), "bias": jnp.zeros(COLUMNS)})


def spacious(tasks, config: AlgorithmConfig = AlgorithmConfig()):
    """A learner that needs room for two large tables, and keeps one number."""

    def update(key, meta):
        table = jax.random.normal(key, (LARGE, LARGE))
        return meta + jnp.sum(jnp.tanh(table @ table))

    return learner_of(config, update, jnp.zeros(()))


def slow(tasks, config: AlgorithmConfig = AlgorithmConfig()):
    """A learner whose meta-steps last a known time, the first one longer."""
    calls = []

    def wait(value):
        time.sleep(SLEEPS if calls else FIRST_SLEEP)
        calls.append(value)
        return np.asarray(value)

    return learner_of(config, lambda key, meta: jax.pure_callback(wait, meta, meta), jnp.zeros(()))


@pytest.fixture(autouse=True)
def _algorithms(monkeypatch):
    learners.register(monkeypatch, products, spacious, slow)


@pytest.fixture
def run_dir(tmp_path):
    """A run with checkpoints 2, 4 and 6."""
    options = {"meta_steps": 6, "log_every": 2, "checkpoint_every": 2}
    jaxmeta.train("products", "probe", run_dir=tmp_path / "run", **options)
    return tmp_path / "run"


def plan(algorithm, **settings):
    return inspection.plan(jobs.prepare(algorithm, "probe", settings))


def snapshot(folder):
    """Everything there is to see of a folder."""
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def damage(checkpoint):
    """Flips a bit in the middle of the largest file of array data; returns its path."""
    largest = max((checkpoint / "state").glob("**/d/*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    return largest.relative_to(checkpoint).as_posix()


def test_a_run_is_told_whole(run_dir):
    before = snapshot(run_dir)
    reported = inspection.inspect_run(run_dir)
    assert set(reported) == BOTH | OF_RUN
    json.dumps(reported, allow_nan=False)
    _, state, _, config = jobs.restore(run_dir)
    assert reported["config"] == config
    assert (reported["meta_step"], reported["state_digest"]) == (6, checkpoints.state_digest(state))
    assert reported["last_log_point"]["env_steps"] == 6 * reported["env_steps_per_meta_step"] == 60
    assert [(found["step"], found["intact"], found["problem"]) for found in reported["checkpoints"]] == [
        (2, True, None),
        (4, True, None),
        (6, True, None),
    ]
    files = [path for path in (run_dir / "checkpoints" / "6").rglob("*") if path.is_file()]
    assert reported["checkpoints"][-1]["bytes"] == sum(len(path.read_bytes()) for path in files)
    assert reported["checkpoints_damaged"] == []
    assert snapshot(run_dir) == before


def test_damage_is_told_and_nothing_is_touched(run_dir):
    broken = damage(run_dir / "checkpoints" / "6")
    missing = run_dir / "checkpoints" / "2" / "state" / "manifest.ocdbt"
    missing.unlink()
    for name in ("8-again", "8"):
        (run_dir / "checkpoints-damaged" / name).mkdir(parents=True)
    before = snapshot(run_dir)
    reported = inspection.inspect_run(run_dir)
    assert {found["step"]: found["problem"] for found in reported["checkpoints"]} == {
        2: "state/manifest.ocdbt is missing",
        4: None,
        6: f"{broken} is damaged",
    }
    assert [found["intact"] for found in reported["checkpoints"]] == [False, True, False]
    assert reported["meta_step"] == 4
    assert reported["checkpoints_damaged"] == ["8", "8-again"]
    assert snapshot(run_dir) == before


def test_a_run_is_shown(run_dir, capsys):
    damage(run_dir / "checkpoints" / "6")
    assert main(["inspect", str(run_dir), "--no-compilation-cache"]) == 0
    out = capsys.readouterr().out
    assert "meta-step 4 of 6" in out
    assert "60 environment steps" in out
    assert "Settings that were changed\n  meta_steps  6\nProgress" in out
    assert out.count("intact") == 2
    assert out.count("damaged: ") == 1
    assert "840 FLOP" in out


def test_a_run_without_a_checkpoint_is_told_so(run_dir, capsys):
    (run_dir / "checkpoints").rename(run_dir / "elsewhere")
    assert main(["inspect", str(run_dir), "--no-compilation-cache"]) == 2
    assert capsys.readouterr().err.startswith("run_dir must hold a checkpoint, got ")


@pytest.mark.parametrize("hidden", [(4,), (8, 5)])
def test_parameters_are_those_of_the_network(hidden):
    job = jobs.prepare("maml", "probe", settings={"hidden": hidden})
    state = jax.eval_shape(job.learner.init, jax.random.key(0))
    observation, actions = 1, 2
    widths = [observation, *hidden, actions]
    layers = sum((above + 1) * below for above, below in itertools.pairwise(widths))
    exploration, hyperparams = actions, 8
    assert inspection.parameters_by_part(job.learner, state) == {
        "params": layers + exploration,
        "hyperparams": hyperparams,
    }


@pytest.mark.parametrize("algorithm", ["meta_sgd", "hyper_policy", "rl2"])
def test_every_part_is_counted_once(algorithm):
    job = jobs.prepare(algorithm, "probe")
    state = jax.eval_shape(job.learner.init, jax.random.key(0))
    parts = inspection.parameters_by_part(job.learner, state)
    assert set(parts) == {
        "meta_sgd": {"params", "rule", "hyperparams"},
        "hyper_policy": {"start", "policy"},
        "rl2": {"params"},
    }.get(algorithm)
    assert sum(parts.values()) == sum(leaf.size for leaf in jax.tree.leaves(job.learner.meta(state)))


@pytest.mark.parametrize("meta_steps", [6, 400])
def test_a_plan_is_told_whole(meta_steps):
    reported = plan("products", meta_steps=meta_steps)
    assert set(reported) == BOTH | OF_PLAN
    json.dumps(reported, allow_nan=False)
    flops = PRODUCTS * 2 * ROWS * INNER * COLUMNS
    assert reported["flops_per_meta_step"] == flops
    assert reported["flops"] == meta_steps * flops
    assert reported["env_steps"] == meta_steps * 2 * 5
    assert reported["parameters_by_part"] == {"table": ROWS * COLUMNS, "bias": COLUMNS}
    step = 1
    state_bytes = 4 * (ROWS * COLUMNS + COLUMNS + step)
    assert reported["memory"]["state_bytes"] == reported["checkpoint_bytes"] == state_bytes
    assert reported["memory"]["argument_bytes"] >= state_bytes
    assert reported["memory"]["output_bytes"] >= state_bytes
    assert reported["config"]["settings"]["meta_steps"] == reported["changed_settings"]["meta_steps"] == meta_steps


@pytest.mark.parametrize(
    ("algorithm", "tasks", "given"),
    [
        ("maml", "grid_navi", {}),
        ("maml", "grid_navi", {"num_adaptations": 7}),
        ("maml", "point_navigation", {"outer.learning_rate": 0.5}),
        ("maml", "grid_navi", {"agent": "actor_critic"}),
        ("rl2", "maze", {"width": 16, "meta_steps": 5}),
        ("scratch", "bandit", {"hidden": (4,)}),
    ],
)
def test_settings_that_were_changed_are_those_that_were_given(algorithm, tasks, given):
    job = jobs.prepare(algorithm, tasks, given)
    assert inspection.changed_settings(algorithm, job.tasks, job.learner.config) == given


def test_temporary_memory_is_what_a_meta_step_needs():
    memory = plan("spacious", meta_steps=2)["memory"]
    assert 2 * 4 * LARGE**2 <= memory["temporary_bytes"] <= 20 * 4 * LARGE**2
    assert memory["state_bytes"] == 8


def test_the_estimate_is_timed_and_the_first_meta_step_is_not():
    reported = plan("slow", meta_steps=1000)
    assert SLEEPS <= reported["seconds_per_meta_step"] < FIRST_SLEEP
    assert reported["estimated_seconds"] == reported["compile_seconds"] + 1000 * reported["seconds_per_meta_step"]


def test_tasks_are_laid_out_on_what_is_there():
    layout = plan("products", meta_steps=1)["devices"]
    assert layout["visible"] == jax.device_count()
    assert layout["tasks_per_batch"] == layout["used"] * layout["tasks_per_device"] == 2


@pytest.mark.slow
@pytest.mark.optimised
def test_a_plan_agrees_with_the_run(tmp_path):
    settings = {"hidden": (4,), "num_envs": 2, "tasks_per_batch": 2, "num_adaptations": 1, "meta_steps": 3}
    planned = plan("finetune", **settings)
    records = []
    jaxmeta.train("finetune", "probe", settings, run_dir=tmp_path / "run", hooks=jaxmeta.Hooks(on_log=records.append))
    assert planned["env_steps"] == records[-1]["env_steps"] > 0
    reported = inspection.inspect_run(tmp_path / "run")
    for name in ("parameters", "flops_per_meta_step", "memory", "changed_settings"):
        assert planned[name] == reported[name], name


def test_a_plan_is_shown_and_written_where_asked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(compilation_cache, "enable", lambda: pytest.fail("the cache was turned on"))
    reported = {"evaluation_seconds": 95.0, "baseline_seconds": 62.0}
    monkeypatch.setattr(inspection, "plan_evaluation", lambda job, on_stage: reported)  # `products` cannot act
    assert main(PLAN) == 0
    assert not list(tmp_path.iterdir())
    out = capsys.readouterr().out
    assert "60" in out
    assert "5.04 kFLOP" in out
    assert "measured on this machine" in out
    assert "about 1:35, of which tuned baselines 1:02" in out
    assert main([*PLAN, "--json", "plan.json"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    written = json.loads((tmp_path / "plan.json").read_text())
    assert written["env_steps"] == 60
    assert written["evaluation_seconds"] == 95.0


def test_a_plan_neither_reads_nor_feeds_a_cache_of_programs(tmp_path):
    def programs():
        return [path for path in tmp_path.iterdir() if path.name.startswith("jit_chunk")]

    with jax_options(compilation_cache_dir=str(tmp_path), persistent_cache_min_compile_time_secs=0):
        plan("products", meta_steps=1)
        assert not programs()
        jaxmeta.train("products", "probe", meta_steps=1)
        assert len(programs()) == 1


@contextlib.contextmanager
def jax_options(**options):
    """JAX's configuration for a while, and a look at it that is not remembered."""
    before = {name: getattr(jax.config, f"jax_{name}") for name in options}
    try:
        for name, value in options.items():
            jax.config.update(f"jax_{name}", value)
        jax_cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(f"jax_{name}", value)
        jax_cache.reset_cache()


@pytest.mark.slow
def test_a_learner_in_context_shows_no_agent(capsys):
    small = ["width=4", "tasks_per_batch=4", "epochs=1", "minibatches=1"]
    argv = ["inspect", "--plan", "rl2", "point_navigation:horizon=4", "--set", *small]
    assert main(argv) == 0
    shown = capsys.readouterr().out
    assert re.search("^  algorithm +rl2$", shown, re.MULTILINE)
    assert "agent" not in shown
    assert re.search("^  width +4$", shown, re.MULTILINE)
    assert "num_query_envs" not in shown, "the family sets it, and rl2 does not read it"
