"""Learning, end to end and small: whether the agents and the meta-learners get better at what they are for."""

import jax
import numpy as np
import pytest

import jaxmeta
from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core import tasks
from jaxmeta.core.types import sample_tasks
from jaxmeta.evaluation.measurement import measure


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.timeout(240)
def test_dqn_solves_cartpole():
    """Ordinary DQN through the engine: a lifetime of 64,000 steps reaches nearly the cap of 200 from a random start."""
    cartpole = tasks.make_tasks("cartpole:signs=plain")
    learner = make_learner(
        "scratch",
        cartpole,
        {
            "inner.optimizer": "adam",
            "num_envs": 8,
            "rollout_length": 100,
            "num_adaptations": 80,
            "agent.replay_capacity": 40,
            "inner.num_steps": 100,
            "batch_size": 64,
            "n_step": 3,
            "inner.learning_rate": 1e-3,
            "target_step_size": 0.05,
            "discount": 0.97,
            "agent.epsilon": 1.0,
            "epsilon_decay": 0.93,
            "stickiness": 0.0,
            "temperature": 0.0,
        },
    )
    env_params = sample_tasks(jax.random.key(0), cartpole, "train", 2)
    meta = learner.init(jax.random.key(1)).meta
    returns = np.asarray(
        jax.jit(lambda key: measure(key, learner, meta, cartpole, env_params).returns)(jax.random.key(2))
    )
    assert returns[:, 0].mean() < 60
    assert returns[:, -20:].max(axis=1).min() > 190
    assert returns[:, -20:].mean() > 150


@pytest.mark.slow
@pytest.mark.optimised
@pytest.mark.timeout(240)
@pytest.mark.parametrize("algorithm", ["maml", "meta_sgd"])
def test_meta_training_improves_what_adaptation_reaches(algorithm):
    """On a 3x3 grid, 120 meta-steps lift the adapted return well above what the untrained start adapts to."""
    grid = tasks.make_tasks("grid_navi:size=3,horizon=8")
    returns = []
    trained = jaxmeta.train(
        algorithm,
        grid,
        {"hidden": (32,), "tasks_per_batch": 5, "num_adaptations": 2},
        meta_steps=120,
        hooks=jaxmeta.Hooks(on_log=lambda record: returns.append(record["return"])),
    )
    learner, state = trained.learner, trained.state
    env_params = sample_tasks(jax.random.key(5), grid, "test", 30)
    run = jax.jit(lambda meta: measure(jax.random.key(6), learner, meta, grid, env_params).returns)
    before = np.asarray(run(learner.init(jax.random.key(0)).meta)).mean(axis=0)
    after = np.asarray(run(learner.meta(state))).mean(axis=0)
    assert np.mean(returns[-20:]) > np.mean(returns[:10]) + 1.0
    assert after[-1] > before[-1] + 1.0
    assert after[-1] > after[0] + 1.0
