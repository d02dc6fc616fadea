"""What is told of a run: each number beside one that is known without it."""

import hashlib
import itertools
import json

import jax
import jax.numpy as jnp
import pytest

import jaxmeta
from jaxmeta import checkpoints, inspection, jobs, recipes
from jaxmeta.base import MetaLearner, MetaState
from jaxmeta.cli import main

BOTH = {"config", "changed_settings", "parameters", "parameters_by_part", "env_steps_per_meta_step"}
BOTH |= {"flops_per_meta_step", "memory", "devices"}
OF_RUN = {"run_dir", "meta_step", "state_digest", "last_log_point", "checkpoints", "checkpoints_damaged"}
PRODUCTS, ROWS, INNER, COLUMNS = 7, 4, 3, 5


def learner_of(parts, update, meta):
    return MetaLearner(
        init=lambda key: MetaState(meta=meta, optimizer=(), step=jnp.zeros((), jnp.int32), carried=None),
        update=lambda key, state, env_params: (
            state.replace(meta=update(key, state.meta), step=state.step + 1),
            {"loss": jnp.zeros(())},
        ),
        task=lambda key, env_params: None,
        adapter=None,
        meta=lambda state: state.meta,
        lifetime=parts.settings.lifetime,
        tasks_per_batch=2,
        env_steps_per_task=5,
    )


def products(parts):
    """A learner whose meta-step is a known number of small matrix products."""

    def update(key, meta):
        left, right = jax.random.normal(key, (ROWS, INNER)), jax.random.normal(key, (INNER, COLUMNS))
        table, _ = jax.lax.scan(lambda table, _: (0.5 * table + left @ right, None), meta["table"], length=PRODUCTS)
        return {**meta, "table": table}

    return learner_of(parts, update, {"table": jnp.zeros((ROWS, COLUMNS)), "bias": jnp.zeros(COLUMNS)})


@pytest.fixture(autouse=True)
def _recipes(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "products", recipes.Recipe("A test.", products, {}))


@pytest.fixture
def run_dir(tmp_path):
    """A run with checkpoints 2, 4 and 6."""
    options = {"meta_steps": 6, "log_every": 2, "checkpoint_every": 2}
    jaxmeta.train("products", "probe", run_dir=tmp_path / "run", **options)
    return tmp_path / "run"


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
    told = inspection.inspect_run(run_dir)
    assert set(told) == BOTH | OF_RUN
    json.dumps(told, allow_nan=False)
    _, state, _, config = jaxmeta.restore(run_dir)
    assert told["config"] == config
    assert (told["meta_step"], told["state_digest"]) == (6, checkpoints.state_digest(state))
    assert told["last_log_point"]["env_steps"] == 6 * told["env_steps_per_meta_step"] == 60
    assert [(found["step"], found["intact"], found["problem"]) for found in told["checkpoints"]] == [
        (2, True, None),
        (4, True, None),
        (6, True, None),
    ]
    files = [path for path in (run_dir / "checkpoints" / "6").rglob("*") if path.is_file()]
    assert told["checkpoints"][-1]["bytes"] == sum(len(path.read_bytes()) for path in files)
    assert told["checkpoints_damaged"] == []
    assert snapshot(run_dir) == before


def test_damage_is_told_and_nothing_is_touched(run_dir):
    broken = damage(run_dir / "checkpoints" / "6")
    missing = run_dir / "checkpoints" / "2" / "state" / "manifest.ocdbt"
    missing.unlink()
    for name in ("8-again", "8"):
        (run_dir / "checkpoints-damaged" / name).mkdir(parents=True)
    before = snapshot(run_dir)
    told = inspection.inspect_run(run_dir)
    assert {found["step"]: found["problem"] for found in told["checkpoints"]} == {
        2: "state/manifest.ocdbt is missing.",
        4: None,
        6: f"{broken} is damaged.",
    }
    assert [found["intact"] for found in told["checkpoints"]] == [False, True, False]
    assert told["meta_step"] == 4
    assert told["checkpoints_damaged"] == ["8", "8-again"]
    assert snapshot(run_dir) == before


def test_a_run_is_shown(run_dir, capsys):
    damage(run_dir / "checkpoints" / "6")
    assert main(["inspect", str(run_dir), "--no-compilation-cache"]) == 0
    out = capsys.readouterr().out
    assert "meta-step 4 of 6" in out
    assert "60 environment steps" in out
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
    exploration, hypers = actions, 8
    assert inspection.parameters_by_part(job.learner, state) == {"params": layers + exploration, "hypers": hypers}


@pytest.mark.parametrize("recipe", ["meta_sgd", "hyper_policy", "rl2"])
def test_every_part_is_counted_once(recipe):
    job = jobs.prepare(recipe, "probe")
    state = jax.eval_shape(job.learner.init, jax.random.key(0))
    parts = inspection.parameters_by_part(job.learner, state)
    assert set(parts) == {
        "meta_sgd": {"params", "rule", "hypers"},
        "hyper_policy": {"start", "policy"},
        "rl2": {"params"},
    }.get(recipe)
    assert sum(parts.values()) == sum(leaf.size for leaf in jax.tree.leaves(job.learner.meta(state)))
