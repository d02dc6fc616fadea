"""A task whose lifetimes have a closed form: pull a parameter towards a centre that the observation shows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta.core.config import AdaptationConfig
from jaxmeta.core.rollout import Runner
from jaxmeta.core.types import Agent, Hyperparams, Spec, Task
from jaxmeta.inner.gradient import GradientConfig, Variant, gradient_steps
from jaxmeta.inner.optimizers import INNER_OPTIMIZERS
from jaxmeta.outer import objectives
from jaxmeta.rl import distributions
from jaxmeta.rl.q_learning import QLearningConfig

LIFETIME = AdaptationConfig(num_envs=2, rollout_length=3, num_adaptations=1)
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

    def act(key, params, percept, hyperparams):
        return jnp.zeros((), jnp.int32), {"logits": jnp.zeros(2)}

    def loss(params, target_params, batch, hyperparams):
        return 0.5 * jnp.sum((params - batch.observation[0]) ** 2), {}

    return Agent(lambda key: jax.random.normal(key, (2,)), act, act, loss, SPEC, QLearningConfig())


def hyperparams(**values) -> Hyperparams:
    """Hyper-parameters with zeros for what is not given."""
    return Hyperparams(**{name: jnp.asarray(values.get(name, 0.0)) for name in Hyperparams.__dataclass_fields__})


def quadratic_objective(num_steps: int, learning_rate: float, rule=INNER_OPTIMIZERS["sgd"], **variant):
    """The adapter, and 0.5 |params after adaptation - centre|^2 as an objective."""
    config = GradientConfig(num_steps=num_steps, learning_rate=learning_rate)
    adapter = gradient_steps(quadratic_agent(), LIFETIME, config, rule, Variant(**variant))

    def outer_loss(meta, learner_state, query):
        return 0.5 * jnp.sum((learner_state.fast.params - query.percept.observation[0, 0]) ** 2), {}

    config = objectives.ObjectiveConfig(num_query_envs=2)
    return adapter, objectives.post_adaptation(
        Runner(CentreEnv(), adapter), ACTIONS, LIFETIME, outer_loss, config, steps=2
    )


def pose(key, env_params) -> Task:
    """A task without a context."""
    return Task(env_params, None)
