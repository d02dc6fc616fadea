"""What a life by gradient steps is set to: how it explores, what its update rule is told, and which parameters move."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.trees import scale_down
from jaxmeta.core.types import Task
from jaxmeta.inner import in_head
from jaxmeta.inner.gradient import GradientConfig, gradient_steps
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS, UpdateRule
from jaxmeta.nets.networks import QNetwork
from jaxmeta.rl.q_learning import QLearningConfig
from tests import toy

ADAPTATIONS, INNER_STEPS = 3, 2


def round_(observe, rule=INNER_OPTIMIZERS["sgd"]):
    """What is observed after each adaptation of a life in the quadratic task, leaves [adaptations, ...]."""
    lifetime = AdaptationConfig(num_envs=2, rollout_length=3, num_adaptations=ADAPTATIONS)
    agent = toy.quadratic_agent()._replace(config=QLearningConfig(epsilon=0.8, epsilon_decay=0.5))
    adapter = gradient_steps(agent, lifetime, GradientConfig(num_steps=INNER_STEPS), rule)
    env, meta, task = toy.CentreEnv(), adapter.init(jax.random.key(0)), Task(jnp.zeros(2), None)
    learner_state = Runner(env, adapter).reset(jax.random.key(1), meta, task, lifetime.num_envs)
    return Runner(env, adapter).adapt_for(
        jax.random.key(2), meta, task, learner_state, lifetime, lambda _, round_: observe(round_)
    )[1]


def test_epsilon_decays_after_each_adaptation():
    before, after = round_(
        lambda round_: (round_.before.fast.hyperparams.epsilon, round_.after.fast.hyperparams.epsilon)
    )
    np.testing.assert_allclose(before, [0.8, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(after, [0.4, 0.2, 0.1], rtol=1e-6)


def test_an_update_rule_is_told_the_share_of_the_lifetime_that_has_passed():
    def update(weights, gradient, state, params, seen):
        return jax.tree.map(jnp.zeros_like, gradient), jnp.append(state[1:], seen.progress)

    rule = UpdateRule(lambda key, params: None, lambda params: jnp.full(ADAPTATIONS * INNER_STEPS, -1.0), update)
    reported = round_(lambda round_: round_.after.fast.rule, rule=rule)[-1]
    np.testing.assert_allclose(reported, np.arange(ADAPTATIONS * INNER_STEPS) / (ADAPTATIONS * INNER_STEPS), rtol=1e-6)


def test_the_head_is_the_last_layer():
    params = QNetwork(3, hidden=(4,), dueling=True).init(jax.random.key(0), jnp.zeros(2))["params"]
    inside = {path[0].key for path, _ in jax.tree_util.tree_leaves_with_path(params) if in_head(path)}
    assert inside == {"head", "head_value"}
    assert set(params) - inside == {"torso_0"}


def test_long_gradients_are_scaled_down_and_short_ones_stay():
    for scale, expected in ((10.0, 0.5), (0.1, 0.1)):
        tree = {"a": scale * jnp.array([0.6]), "b": scale * jnp.array([0.8])}
        found = scale_down(tree, 0.5)
        np.testing.assert_allclose((found["a"][0], found["b"][0]), (0.6 * expected, 0.8 * expected), rtol=1e-6)
