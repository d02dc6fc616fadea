"""What is known of tuned baselines: it is found again by its content, and never taken for something else."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxmeta.algorithms.registry import configure, make_learner
from jaxmeta.core.tasks import make_tasks
from jaxmeta.core.types import sample_tasks
from jaxmeta.evaluation import baseline_cache, baselines, tuned_baselines
from jaxmeta.evaluation import evaluate as evaluation
from jaxmeta.evaluation.baselines import Choice, Tried
from jaxmeta.evaluation.measurement import Measured
from jaxmeta.evaluation.tuned_baselines import Baselines
from tests.conftest import TINY

BEST = Choice(learning_rate=3e-3, epsilon=0.3, temperature=0.0, num_steps=10, n_step=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of its own, and a package that ships nothing."""
    monkeypatch.setattr(baseline_cache, "user_cache", lambda: tmp_path)
    monkeypatch.setattr(baseline_cache, "_shipped", dict)
    return tmp_path / "baselines"


@pytest.fixture
def work(monkeypatch):
    """Tuning and measuring cost nothing and are noted, as what was done for which baseline."""
    done = []

    def tune(self, name):
        done.append(f"tune {name}")
        return Tried(BEST, self.grid, 1.5)

    def measure(self, name, choice, env_params, starts):
        done.append(f"measure {name}")
        count = len(jax.tree.leaves(env_params)[0])
        returns = np.full((count, 3), 1 / 3, np.float32)
        return [Measured(returns, returns[:, 0])] * starts

    monkeypatch.setattr(Baselines, "tune", tune)
    monkeypatch.setattr(Baselines, "measure", measure)
    return done


EVERYTHING = ["tune scratch", "measure scratch", "tune finetune", "measure finetune"]


def measured(tasks, seed=0, num_tasks=4, pretraining_steps=1000, retune=False, **settings):
    config, key = configure("maml", tasks, TINY | settings), jax.random.key(seed)
    those = Baselines(key, tasks, config, pretraining_steps=pretraining_steps, seed=seed)
    return tuned_baselines.measure_baselines(those, key, sample_tasks(key, tasks, "test", num_tasks), retune=retune)


def test_what_is_known_is_not_found_out_again(grid, work):
    first = measured(grid)
    assert work == EVERYTHING
    again = measured(grid)
    assert work == EVERYTHING
    for name, (entries, tried) in again.items():
        np.testing.assert_array_equal(entries[0].returns, first[name][0][0].returns)
        assert entries[0].returns.dtype == np.float32
        assert (tried.choice, tried.validation_return, tried.source) == (BEST, 1.5, "cached")


@pytest.mark.parametrize(
    ("change", "done"),
    [
        ({"num_adaptations": 3}, EVERYTHING),
        ({"hidden": (9,)}, EVERYTHING),
        ({"temperature": 0.7}, EVERYTHING),
        ({"seed": 1}, EVERYTHING),
        ({"retune": True}, EVERYTHING),
        ({"num_tasks": 5}, ["measure scratch", "measure finetune"]),
        ({"pretraining_steps": 1001}, ["measure scratch", "measure finetune"]),
        ({"pretraining_steps": 100_000}, ["measure scratch", "tune finetune", "measure finetune"]),
        ({"outer.learning_rate": 0.7, "meta_steps": 3, "entropy": 0.5}, []),
        ({"inner.learning_rate": 0.7, "inner.num_steps": 7, "agent.epsilon": 0.7, "n_step": 3}, []),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_a_result_follows_from_decides(grid, work, change, done):
    """What baselines tune themselves, and what only the outer loop reads, is none of their concern."""
    measured(grid)
    work.clear()
    measured(grid, **change)
    assert work == done


def test_a_family_that_was_changed_under_its_name_is_another(grid, work):
    measured(grid)
    work.clear()
    warmer = grid.env.step

    class Generous(type(grid.env)):
        def step(self, *arguments):
            observation, state, reward, *rest = warmer(*arguments)
            return observation, state, reward + 1, *rest

    environment = object.__new__(Generous)
    environment.__dict__.update(grid.env.__dict__)
    measured(grid._replace(env=environment))
    assert work == EVERYTHING


def test_other_source_code_measures_anew(grid, work, monkeypatch):
    measured(grid)
    work.clear()
    monkeypatch.setattr(baseline_cache, "of_engine", lambda: {"source": "other"})
    measured(grid)
    assert work == ["measure scratch", "measure finetune"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"content": {}, "result": {}}'])
def test_a_damaged_file_is_made_again(grid, work, cache, content):
    measured(grid)
    work.clear()
    for path in cache.iterdir():
        path.write_bytes(content)
    measured(grid)
    assert work == EVERYTHING
    measured(grid)
    assert work == EVERYTHING


def test_a_folder_that_cannot_be_written_is_told_and_left(grid, work, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setattr(baseline_cache, "user_cache", lambda: tmp_path / "file")
    assert set(measured(grid)) == {"scratch", "finetune"}
    assert "Tuned baselines are not kept" in caplog.text


def test_what_ships_is_used_and_said(grid, work, monkeypatch):
    config = configure("maml", grid, TINY)
    those = Baselines(jax.random.key(0), grid, config, pretraining_steps=1000, seed=0)
    entry = {"choice": dataclasses.asdict(BEST), "validation_return": 2.5}
    shipped = {json.dumps(those.content(name), sort_keys=True): entry for name in tuned_baselines.NAMES}
    monkeypatch.setattr(baseline_cache, "_shipped", lambda: shipped)
    found = measured(grid)
    assert work == ["measure scratch", "measure finetune"], "a network is trained and measured all the same"
    assert all(tried.report()["source"] == "shipped" for _, tried in found.values())
    work.clear()
    measured(grid, retune=True)
    assert work == EVERYTHING


def test_the_main_job_s_baselines_ship(monkeypatch):
    monkeypatch.undo()
    tasks = make_tasks("grid_navi")
    for meta_steps in (20, 1000):
        learner = make_learner("maml", tasks, {"meta_steps": meta_steps})
        those = evaluation.baselines_of(learner, tasks)
        for name in tuned_baselines.NAMES:
            shipped = baseline_cache.shipped_choice(those.content(name))
            assert shipped is not None
            tried = Tried(Choice(**shipped["choice"]), those.grid, shipped["validation_return"], "shipped")
            assert tried.choice.learning_rate in baselines.LEARNING_RATES
            assert tried.choice.num_steps in those.grid.num_steps


@pytest.mark.slow
def test_an_evaluation_repeats_itself_and_retuning_arrives_there_again():
    """With the real tuning, on a family where it is quick."""
    tasks = make_tasks("probe")
    settings = {"hidden": (4,), "num_envs": 2, "tasks_per_batch": 2, "num_adaptations": 1, "num_query_envs": 2}
    learner = make_learner("maml", tasks, settings)
    state = learner.init(jax.random.key(0))
    first, second, third = (
        evaluation.evaluate(learner, state, tasks, num_tasks=2, with_gap_and_cost=False, retune=retune)
        for retune in (False, False, True)
    )
    for name in tuned_baselines.NAMES:
        sources = [report["baselines"][name]["tuned"].pop("source") for report in (first, second, third)]
        assert sources == ["tuned", "cached", "tuned"]
    assert first == second == third
