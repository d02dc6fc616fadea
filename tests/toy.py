"""A task whose lifetimes have a closed form: pull a parameter towards a centre that the observation shows."""

from dataclasses import fields
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.config import InnerConfig, LifetimeConfig, OuterConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Agent, Hypers, Spec, Task
from jaxmeta.inner.gradient import gradient_steps
from jaxmeta.outer import objectives
from jaxmeta.rl import distributions

LIFETIME = LifetimeConfig(envs=2, steps=3, rounds=1)
SPEC = Spec(jax.ShapeDtypeStruct((2,), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32), None, 2)
ACTIONS = distributions.of_actions(SPEC)


class TwoActions(NamedTuple):
    """An action space."""

    n: int = 2

    def sample(self, key):
        """Draws an action, [] int32."""
        return jax.random.randint(key, (), 0, 2, jnp.int32)


class CentreEnv:
    """Shows its centre, [2], and rewards nothing; its parameters are the centre."""

    def reset(self, key, params):
        """Starts an episode; the state is its time."""
        return params, jnp.zeros((), jnp.int32)

    def step(self, key, state, action, params):
        """Takes a step that changes nothing."""
        ended = jnp.zeros((), bool)
        return params, state + 1, jnp.zeros(()), ended, ended, {"final_observation": params}

    def action_space(self, params):
        """Two actions that do nothing."""
        return TwoActions()


def quadratic_agent() -> Agent:
    """Its loss is 0.5 |params - centre|^2."""

    def act(key, params, percept, hypers):
        return jnp.zeros((), jnp.int32), {"logits": jnp.zeros(2)}

    def loss(params, slow, batch, hypers):
        return 0.5 * jnp.sum((params - batch.observation[0]) ** 2), {}

    return Agent(lambda key: jax.random.normal(key, (2,)), act, act, loss)


def hypers(**values) -> Hypers:
    """Hyper-parameters with zeros for what is not given."""
    return Hypers(**{field.name: jnp.asarray(values.get(field.name, 0.0)) for field in fields(Hypers)})


def quadratic_objective(inner_steps: int, learning_rate: float, **options):
    """The adapter, and 0.5 |params after adaptation - centre|^2 as an objective."""
    adapter = gradient_steps(
        quadratic_agent(),
        SPEC,
        LIFETIME,
        InnerConfig(inner_steps=inner_steps),
        hypers(learning_rate=learning_rate),
        **options,
    )

    def outer_loss(meta, life, query):
        return 0.5 * jnp.sum((life.fast.params - query.percept.observation[0, 0]) ** 2), {}

    config = OuterConfig(query_envs=2)
    return adapter, objectives.post_adaptation(
        Runner(CentreEnv(), adapter), ACTIONS, LIFETIME, outer_loss, config, steps=2
    )


def pose(key, env_params) -> Task:
    """A task without a context."""
    return Task(env_params, None)
