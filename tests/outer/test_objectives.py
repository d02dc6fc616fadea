"""Objectives: what exploration is credited with, against an exact derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.algorithms.registry import make_learner
from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Adapter, Task, sample_tasks
from jaxmeta.outer import objectives
from jaxmeta.rl import distributions
from tests import tiers, toy
from tests.conftest import TINY

REWARDS = jnp.array([0.2, 1.0, 0.5])
ACTIONS = distributions.of_actions(toy.SPEC._replace(num_actions=3))


class Pull:
    """One step, three actions, each with its reward."""

    def reset(self, key, params):
        """The only state."""
        return jnp.zeros(1), jnp.zeros((), jnp.int32)

    def step(self, key, state, action, params):
        """Pays and ends."""
        done = jnp.ones((), bool)
        return jnp.zeros(1), state, params[action], done, jnp.zeros((), bool), {"final_observation": jnp.zeros(1)}

    def action_space(self, params):
        """Three arms, of which the sampler needs the dtype alone."""
        return toy.TwoActions()


def copycat() -> Adapter:
    """Explores by learned logits, and afterwards does again what it did: adaptation is as good as exploration was."""

    def act(key, meta, fast, memory, percept):
        return jax.random.categorical(key, meta).astype(jnp.int32), memory, {"logits": jax.nn.log_softmax(meta)}

    def eval_policy(key, meta, fast, memory, percept):
        return fast, memory, {"logits": jnp.zeros(3)}

    return Adapter(
        init=lambda key: jnp.zeros(3),
        reset=lambda key, meta, context: (jnp.zeros((), jnp.int32), None),
        act=act,
        eval_policy=eval_policy,
        adapt=lambda key, meta, fast, rollout: (rollout.action[0, 0], {}),
    )


def hold_credit_to_the_exact_derivative(adapter, lifetimes, adaptations):
    """E[gradient] = -d/d logits sum_a p_a r_a, known exactly, where the first action decides what is earned."""

    def no_score(meta, learner_state, query):
        return jnp.zeros(()), {}

    config = objectives.ObjectiveConfig(lifetimes_per_task=lifetimes, num_query_envs=1)
    lifetime = AdaptationConfig(num_envs=1, rollout_length=1, num_adaptations=adaptations)
    objective = objectives.post_adaptation(Runner(Pull(), adapter), ACTIONS, lifetime, no_score, config, steps=1)
    logits, task = jnp.array([0.3, -0.4, 0.1]), Task(REWARDS, None)
    gradient = jax.vmap(jax.grad(lambda meta, key: objective(key, meta, task, None)[0]), (None, 0))
    samples = np.asarray(jax.jit(gradient)(logits, jax.random.split(jax.random.key(0), 20_000)))
    probabilities = np.asarray(jax.nn.softmax(logits))
    exact = -probabilities * (REWARDS - probabilities @ REWARDS)
    standard_error = samples.std(axis=0) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(axis=0) - exact) < 4 * standard_error)
    assert np.all(standard_error < 0.1 * np.linalg.norm(exact))


@pytest.mark.parametrize("lifetimes", [2, 3])
def test_credit_of_exploration_is_the_derivative_of_the_return_after_adaptation(lifetimes):
    hold_credit_to_the_exact_derivative(copycat(), lifetimes, adaptations=1)


def test_a_rollout_is_credited_with_what_it_leads_to_after_later_adaptations():
    """Where the first action is repeated ever after, the later actions earn nothing."""
    first = copycat()._replace(
        reset=lambda key, meta, context: (jnp.full((), -1, jnp.int32), None),
        adapt=lambda key, meta, fast, rollout: (jnp.where(fast < 0, rollout.action[0, 0], fast), {}),
    )
    hold_credit_to_the_exact_derivative(first, lifetimes=2, adaptations=2)


def test_entropy_lowers_the_outer_loss():
    """By its weight, and by a uniform policy over three actions by log 3 a step."""
    adapter, task, steps = copycat(), Task(REWARDS, None), 2
    learner_state = Runner(Pull(), adapter).reset(jax.random.key(0), jnp.zeros(3), task, 1)
    query = Runner(Pull(), adapter).evaluate_policy(jax.random.key(1), jnp.zeros(3), task, learner_state, 4, steps)
    outer_losses = [
        objectives.policy_gradient(adapter, ACTIONS, objectives.ScoreConfig(entropy=weight)) for weight in (0.0, 0.3)
    ]
    plain, bonus = (outer_loss(jnp.zeros(3), learner_state, query)[0] for outer_loss in outer_losses)
    np.testing.assert_allclose(bonus - plain, -steps * 0.3 * np.log(3), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "lifetimes", "moves"), [("fomaml", 2, True), *tiers.slow(("maml", 2, True), ("maml", 1, False))]
)
def test_exploration_is_learned_where_a_task_is_lived_more_than_once(grid, name, lifetimes, moves):
    learner = make_learner(name, grid, TINY | {"lifetimes_per_task": lifetimes})
    state = jax.jit(learner.init)(jax.random.key(0))
    env_params = sample_tasks(jax.random.key(1), grid, "train", 4)
    after = jax.jit(learner.update)(jax.random.key(2), state, Task(env_params, None))[0]
    assert bool(np.any(after.meta.params["exploration"])) == moves


@pytest.mark.parametrize(
    ("scored", "mean"), [("every", (1 + 2 + 3) / 3), ("last", 3), ("before_and_every", (0 + 1 + 2 + 3) / 4)]
)
def test_scores_count_as_configured(scored, mean):
    """The score is how many adaptations a life has seen."""
    config = objectives.ObjectiveConfig(num_query_envs=1, scored=scored)
    ageing = copycat()._replace(adapt=lambda key, meta, fast, rollout: (fast + 1, {}))

    def age(meta, learner_state, query):
        return learner_state.fast.astype(jnp.float32), {}

    lifetime = AdaptationConfig(num_envs=1, rollout_length=1, num_adaptations=3)
    objective = objectives.post_adaptation(Runner(Pull(), ageing), ACTIONS, lifetime, age, config, steps=1)
    score = jax.jit(lambda meta: objective(jax.random.key(0), meta, Task(REWARDS, None), None)[0])
    assert np.isclose(score(jnp.zeros(3)), mean)


@pytest.mark.parametrize(("scored", "episodes"), [("every", 3), ("last", 3), ("before_and_every", 4)])
def test_steps_of_all_queries_are_counted(grid, scored, episodes):
    settings = {
        "num_envs": 2,
        "rollout_length": 5,
        "num_adaptations": 3,
        "num_query_envs": 4,
        "lifetimes_per_task": 2,
        "scored": scored,
    }
    learner = make_learner("maml", grid, TINY | settings)
    assert learner.env_steps_per_task == 2 * (3 * 2 * 5 + episodes * 4 * grid.horizon)
