"""The training loop, on a learner whose meta-step is one step of SGD towards the centre of a random quadratic."""

import logging
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta
from jaxmeta.training import checkpoints, chunks, jobs
from jaxmeta.training import loop as training
from jaxmeta.training import seeds as multi_seed
from jaxmeta.training.jobs import NOTHING
from jaxmeta.training.run_directory import RunDirectory
from tests import learners
from tests.conftest import tiny
from tests.learners import DIVERGED_AT, QuadraticConfig, quadratic
from tests.records import interrupt_at, reported


@pytest.fixture(autouse=True)
def _quadratic(monkeypatch):
    learners.register(monkeypatch, quadratic)


def train(settings=NOTHING, on_log=lambda record: None, **options):
    return jaxmeta.train("quadratic", "probe", settings, hooks=jaxmeta.Hooks(on_log=on_log), **options).state


DIVERGES = {"learning_rate": DIVERGED_AT}


def test_needs_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = []
    run = jaxmeta.train("quadratic", "probe", meta_steps=10, log_every=4, hooks=jaxmeta.Hooks(on_log=records.append))
    assert int(run.state.step) == 10
    assert [record["meta_step"] for record in records] == [4, 8, 10]
    assert [record["env_steps"] for record in records] == [40, 80, 100]
    assert run.learner.tasks_per_batch == 2
    assert not list(tmp_path.iterdir())


def test_metrics_are_means_over_the_meta_steps_since_the_last_log_point():
    coarse, fine = [], []
    train(meta_steps=7, log_every=3, on_log=coarse.append)
    train(meta_steps=7, log_every=1, on_log=fine.append)
    losses = [record["loss"] for record in fine]
    expected = [np.mean(losses[:3]), np.mean(losses[3:6]), losses[6]]
    np.testing.assert_allclose([record["loss"] for record in coarse], expected, rtol=1e-6)


def test_traces_and_compiles_one_program_whatever_the_lengths_of_chunks(monkeypatch):
    assert learners.traced_and_compiled(monkeypatch, train) == (1, 2), "the chunk; the initial state, and the chunk"


def test_seeds_differ_and_repeat():
    digests = [checkpoints.state_digest(train(meta_steps=3, seed=seed)) for seed in (0, 1, 0)]
    assert digests[0] == digests[2] != digests[1]


def test_no_two_draws_of_a_run_share_a_key():
    step_key = jax.random.key(0)
    used = [key for step in range(3) for key in chunks.keys_of_meta_step(step_key, step)]
    used += multi_seed.root_keys(np.int32(0))
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in [step_key, *used]}) == 9


def test_training_draws_training_tasks_alone():
    drawn, probe = [], jaxmeta.make_tasks("probe")
    tasks = probe._replace(sample=lambda key, split: drawn.append(split) or probe.sample(key, split))
    jaxmeta.train("quadratic", tasks, meta_steps=1)
    assert set(drawn) == {"train"}


@pytest.mark.parametrize("stop", [4, 8])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, stop):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {"meta_steps": 14, "log_every": 4, "checkpoint_every": 100}
    expected = train(run_dir=whole, **options)
    with pytest.raises(KeyboardInterrupt, match=f"Interrupted at meta-step {stop} of 14, and saved"):
        train(run_dir=parts, on_log=interrupt_at(stop), **options)
    assert checkpoints.finished_steps(parts / "checkpoints") == [stop]
    resumed = jaxmeta.train(run_dir=parts, resume=True).state
    assert checkpoints.state_digest(resumed) == checkpoints.state_digest(expected)
    assert reported(parts) == reported(whole)
    seconds = [record["seconds"] for record in RunDirectory(parts).read_metrics()]
    assert seconds == sorted(seconds)
    assert RunDirectory(whole).load_config() == RunDirectory(parts).load_config()


def test_interrupted_before_its_first_chunk_a_run_can_be_resumed(tmp_path, monkeypatch):
    make_chunk = training.make_chunk

    def interrupted_while_tracing(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return make_chunk(*arguments, **options)

    monkeypatch.setattr(training, "make_chunk", interrupted_while_tracing)
    with pytest.raises(KeyboardInterrupt, match="at meta-step 0 of 4, and saved"):
        train(run_dir=tmp_path, meta_steps=4)
    monkeypatch.setattr(training, "make_chunk", make_chunk)
    resumed = jaxmeta.train(run_dir=tmp_path, resume=True).state
    assert checkpoints.state_digest(resumed) == checkpoints.state_digest(train(meta_steps=4))


def test_resume_drops_metrics_beyond_the_checkpoint(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(run_dir=tmp_path, meta_steps=9, log_every=3, on_log=interrupt_at(6))
    run = RunDirectory(tmp_path)
    kept = run.metrics.read_text()
    beyond = kept.splitlines()[-1].replace('"meta_step": 6', '"meta_step": 9')
    run.metrics.write_text(f'{kept}{beyond}\n{{"meta_st')
    train(run_dir=tmp_path, resume=True)
    assert run.metrics.read_text().startswith(kept)
    assert [record["meta_step"] for record in run.read_metrics()] == [3, 6, 9]


def test_a_finished_run_can_go_on(tmp_path):
    train(run_dir=tmp_path, meta_steps=4, log_every=2)
    extended = train(run_dir=tmp_path, meta_steps=8, resume=True)
    assert checkpoints.state_digest(extended) == checkpoints.state_digest(train(meta_steps=8, log_every=2))
    assert RunDirectory(tmp_path).load_config()["meta_steps"] == 8
    assert int(train(run_dir=tmp_path, resume=True).step) == 8
    with pytest.raises(jaxmeta.UsageError, match="meta_steps must be at least 8"):
        train(run_dir=tmp_path, meta_steps=7, resume=True)


def test_a_run_without_a_checkpoint_starts_again(tmp_path):
    RunDirectory(tmp_path).write_config(jobs.prepare("quadratic", "probe", {"meta_steps": 3}).config)
    assert int(jaxmeta.train(run_dir=tmp_path, resume=True).state.step) == 3


def test_resume_trains_past_a_damaged_checkpoint(tmp_path, caplog):
    expected = train(run_dir=tmp_path, meta_steps=6, log_every=2, checkpoint_every=2)
    folder = tmp_path / "checkpoints"
    (folder / "6" / "state" / "manifest.ocdbt").unlink()
    with caplog.at_level(logging.WARNING, "jaxmeta"):
        again = train(run_dir=tmp_path, resume=True)
    assert "Checkpoint 6" in caplog.text
    assert checkpoints.state_digest(again) == checkpoints.state_digest(expected)
    assert checkpoints.finished_steps(folder) == [2, 4, 6]
    assert (tmp_path / "checkpoints-damaged" / "6").is_dir()
    assert int(jobs.restore(tmp_path)[1].step) == 6


def test_keeps_the_newest_checkpoints_and_the_best(tmp_path):
    train(run_dir=tmp_path, meta_steps=10, log_every=2, checkpoint_every=2)
    best = max(RunDirectory(tmp_path).read_metrics(), key=lambda record: record["return"])["meta_step"]
    assert best == 4, "one that the newest would have pushed out"
    assert checkpoints.finished_steps(tmp_path / "checkpoints") == [4, 6, 8, 10]


def test_as_many_of_the_newest_checkpoints_stay_as_are_asked_for(tmp_path):
    train(run_dir=tmp_path, meta_steps=10, log_every=2, checkpoint_every=2, keep=5)
    assert checkpoints.finished_steps(tmp_path / "checkpoints") == [2, 4, 6, 8, 10]
    train(run_dir=tmp_path, resume=True, meta_steps=12, keep=1)
    assert checkpoints.finished_steps(tmp_path / "checkpoints") == [4, 12], "the best, and the newest"


def test_checkpoints_are_saved_at_the_log_point_that_follows(tmp_path):
    train(run_dir=tmp_path, meta_steps=10, log_every=2, checkpoint_every=5)
    assert checkpoints.finished_steps(tmp_path / "checkpoints") == [6, 10]


def test_the_best_checkpoint_can_be_restored(tmp_path):
    train(run_dir=tmp_path, meta_steps=10, log_every=2, checkpoint_every=2)
    assert int(jobs.restore(tmp_path, best=True)[1].step) == 4
    assert int(jobs.restore(tmp_path)[1].step) == 10


def test_restore_brings_everything_back(tmp_path):
    state = train(run_dir=tmp_path, meta_steps=3)
    learner, restored, tasks, config = jobs.restore(tmp_path)
    assert checkpoints.state_digest(restored) == checkpoints.state_digest(state)
    assert (tasks.name, config["algorithm"], learner.tasks_per_batch) == ("probe", "quadratic", 2)


def test_numbers_that_are_not_finite_end_a_run(tmp_path):
    with pytest.raises(jaxmeta.NonFiniteError, match="return became nan at meta-step 8"):
        train(DIVERGES, run_dir=tmp_path, meta_steps=20, log_every=3, checkpoint_every=3)
    assert checkpoints.finished_steps(tmp_path / "checkpoints") == [3, 6]
    assert RunDirectory(tmp_path).read_metrics()[-1]["meta_step"] == 6


class Faulty:
    """An environment whose reward is NaN once in a while."""

    def __init__(self, env):
        self.env = env

    def __getattr__(self, name):
        return getattr(self.env, name)

    def step(self, key, state, action, params):
        """Takes a step."""
        observation, state, reward, *rest = self.env.step(key, state, action, params)
        return observation, state, jnp.where(jax.random.uniform(key) < 3e-4, jnp.nan, reward), *rest


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["maml", "reptile"])
def test_an_environment_that_returns_nan_ends_a_run_at_its_last_good_checkpoint(grid, tmp_path, algorithm):
    tasks = grid._replace(env=Faulty(grid.env))
    with pytest.raises(jaxmeta.NonFiniteError, match="became nan at meta-step") as ended:
        jaxmeta.train(
            algorithm, tasks, tiny(algorithm), run_dir=tmp_path, log_every=1, checkpoint_every=1, meta_steps=200
        )
    step = int(re.search(r"meta-step (\d+)", str(ended.value)).group(1))
    assert step > 1, "the fault must come after something was saved"
    assert checkpoints.finished_steps(tmp_path / "checkpoints")[-1] == step - 1
    _, restored, _, _ = jobs.restore(tmp_path, tasks)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(restored) if leaf.dtype == jnp.float32)


@pytest.mark.optimised  # equal to the bit as users compile
def test_meta_steps_whose_numbers_are_not_finite_can_be_skipped(tmp_path):
    state = train(DIVERGES, run_dir=tmp_path, meta_steps=9, log_every=3, on_nonfinite="skip")
    assert int(state.step) == 9
    assert np.all(np.isfinite(state.meta))
    assert [record["skipped"] for record in RunDirectory(tmp_path).read_metrics()] == [0, 0, 1]
    sound = train(DIVERGES, meta_steps=7)
    ended = train(DIVERGES, meta_steps=8, log_every=2, on_nonfinite="skip")
    np.testing.assert_array_equal(ended.meta, sound.meta)


def test_a_meta_step_whose_loss_alone_is_not_finite_is_skipped(monkeypatch):
    """What was learned is what it was before it."""

    def blinded(tasks, config: QuadraticConfig = QuadraticConfig()):
        learner = quadratic(tasks, config)

        def update(key, state, tasks):
            after, info = learner.update(key, state, tasks)
            loss = jnp.where(state.step == 2, jnp.nan, info.metrics["loss"])
            return after, info._replace(metrics={**info.metrics, "loss": loss})

        return learner._replace(update=update)

    learners.register(monkeypatch, blinded)
    before, after = (
        jaxmeta.train("blinded", "probe", meta_steps=meta_steps, log_every=3, on_nonfinite="skip").state.meta
        for meta_steps in (2, 3)
    )
    np.testing.assert_array_equal(before, after)


def test_a_run_that_only_skips_ends():
    with pytest.raises(
        jaxmeta.NonFiniteError, match="became nan at meta-step 8; none of the 1 meta-steps up to 8 could be kept"
    ):
        train(DIVERGES, meta_steps=9, log_every=1, on_nonfinite="skip")


@pytest.mark.slow
def test_tasks_that_are_not_finite_are_named(grid):
    tasks = grid._replace(env=Faulty(grid.env))
    with pytest.raises(jaxmeta.NonFiniteError, match=r"in tasks? [0-3](, [0-3])* of its batch\.$"):
        jaxmeta.train("maml", tasks, tiny("maml"), log_every=1, meta_steps=200)


@pytest.mark.parametrize("bad", [[], [2], [0, 3]])
def test_the_sentence_names_the_tasks(bad):
    finite = np.isin(np.arange(4), bad, invert=True)[None]
    log = chunks.Log({"loss": np.array([np.nan])}, np.array([True]), finite)
    named = {0: "", 1: ", in task 2 of its batch", 2: ", in tasks 0, 3 of its batch"}[len(bad)]
    with pytest.raises(jaxmeta.NonFiniteError, match=f"^loss became nan at meta-step 6{named}\\.$"):
        chunks.summary(log, step=5, length=1)


def test_a_state_that_is_not_finite_is_named_by_its_meta_step():
    log = chunks.Log({"loss": np.zeros(4, np.float32)}, np.array([True, True, False, False]), None)
    with pytest.raises(jaxmeta.NonFiniteError, match="The state stopped being finite at meta-step 13"):
        chunks.summary(log, step=10, length=4)
    assert chunks.summary(log, step=10, length=2) == {"loss": 0.0}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "seed must be from 0 to 2147483647, got -1."),
        ({"meta_steps": 0}, "meta_steps must be at least 1, got 0."),
        ({"log_every": 0}, "log_every must be at least 1, got 0."),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, got 0."),
        ({"keep": 0}, "keep must be at least 1, got 0."),
        ({"settings": {"learning_rate": float("nan")}}, "learning_rate must be finite, got nan."),
        ({"on_nonfinite": "go"}, "on_nonfinite must be one of skip, stop, got 'go'."),
        ({"on_write_error": "go"}, "on_write_error must be one of continue, stop, got 'go'."),
        ({"resume": True, "run_dir": None}, "resume must come with a run_dir, got None."),
        ({"resume": True}, "run_dir must be the folder of a run, with a config.json, got "),
        ({"run_dir": "pyproject.toml/run"}, "run_dir must be a folder that can be written, got 'pyproject.toml/run'."),
    ],
)
def test_mistakes_are_told_before_anything_is_written(tmp_path, monkeypatch, options, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    with pytest.raises(jaxmeta.UsageError) as raised:
        train(**{"run_dir": "run", **options})
    assert str(raised.value).startswith(sentence)
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": 1}, "seed must be 0, as in the run that is resumed, got 1."),
        ({"algorithm": "maml"}, "algorithm must be 'quadratic', as in the run that is resumed, got 'maml'."),
        ({"tasks": "cartpole"}, "tasks must be 'probe', as in the run that is resumed, got 'cartpole'."),
        ({"settings": {"learning_rate": 0.5}}, "learning_rate must be 0.1, as in the run that is resumed, got 0.5."),
        ({"resume": False}, "run_dir must be a new or empty folder, or be resumed, got "),
    ],
)
def test_another_configuration_is_refused(tmp_path, options, sentence):
    train(run_dir=tmp_path, meta_steps=2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(jaxmeta.UsageError) as raised:
        jaxmeta.train(**{"run_dir": tmp_path, "resume": True, **options})
    assert str(raised.value).startswith(sentence)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        (
            {},
            {"trust_region": "default"},
            "outer.trust_region.epochs must be None, as in the run that is resumed, got 4.",
        ),
        ({}, {"epochs": 2}, "epochs must be left out where outer.trust_region is none, got 2."),
        (
            {"epochs": 2},
            {"trust_region": None},
            "outer.trust_region.epochs must be left out where outer.trust_region is none, got 2.",
        ),
        ({"epochs": 2}, {"epochs": 3}, "outer.trust_region.epochs must be 2, as in the run that is resumed, got 3."),
        ({}, {"agent": "dqn"}, "agent must be 'actor_critic', as in the run that is resumed, got 'dqn'."),
    ],
)
def test_a_record_of_settings_neither_comes_nor_goes(tmp_path, first, second, sentence):
    settings = tiny("maml", {"agent": "actor_critic"})
    config = jobs.prepare("maml", "grid_navi", settings | first).config
    RunDirectory(tmp_path).write_config(config)
    with pytest.raises(jaxmeta.UsageError) as refused:
        jobs.prepare(settings=second, run_dir=tmp_path, resume=True)
    assert str(refused.value) == sentence
    assert jobs.prepare(settings=first, run_dir=tmp_path, resume=True).config["settings"] == config["settings"]


def test_what_cannot_be_traced_leaves_no_folder(tmp_path, monkeypatch):
    def broken(tasks, config: QuadraticConfig = QuadraticConfig()):
        return quadratic(tasks, config)._replace(update=lambda key, state, env_params: state.no_such_field)

    learners.register(monkeypatch, broken)
    with pytest.raises(AttributeError):
        jaxmeta.train("broken", "probe", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
