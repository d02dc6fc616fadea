"""What a life by gradient steps is set to: how it explores, what its update rule is told, and which parameters move."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta.core.config import InnerConfig, LifetimeConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.trees import scale_down
from jaxmeta.core.types import Task
from jaxmeta.inner import in_head
from jaxmeta.inner.gradient import gradient_steps
from jaxmeta.inner.optimizers import UpdateRule
from jaxmeta.nets.networks import QNetwork
from tests import toy

ROUNDS, INNER_STEPS = 3, 2


def lived(observe, **options):
    """What is observed after each round of a life in the quadratic task, leaves [rounds, ...]."""
    lifetime = LifetimeConfig(envs=2, steps=3, rounds=ROUNDS)
    hypers = toy.hypers(epsilon=0.8, epsilon_decay=0.5)
    adapter = gradient_steps(
        toy.quadratic_agent(), toy.SPEC, lifetime, InnerConfig(inner_steps=INNER_STEPS), hypers, **options
    )
    env, meta, task = toy.CentreEnv(), adapter.init(jax.random.key(0)), Task(jnp.zeros(2), None)
    life = Runner(env, adapter).begin(jax.random.key(1), meta, task, lifetime.envs)
    return Runner(env, adapter).live(jax.random.key(2), meta, task, life, lifetime, lambda _, lived: observe(lived))[1]


def test_epsilon_decays_after_each_round():
    before, after = lived(lambda lived: (lived.before.fast.hypers.epsilon, lived.after.fast.hypers.epsilon))
    np.testing.assert_allclose(before, [0.8, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(after, [0.4, 0.2, 0.1], rtol=1e-6)


def test_an_update_rule_is_told_the_share_of_the_lifetime_that_has_passed():
    def update(weights, gradient, state, params, seen):
        return jax.tree.map(jnp.zeros_like, gradient), jnp.append(state[1:], seen.progress)

    rule = UpdateRule(lambda key, params: None, lambda params: jnp.full(ROUNDS * INNER_STEPS, -1.0), update)
    told = lived(lambda lived: lived.after.fast.rule, rule=rule)[-1]
    np.testing.assert_allclose(told, np.arange(ROUNDS * INNER_STEPS) / (ROUNDS * INNER_STEPS), rtol=1e-6)


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
