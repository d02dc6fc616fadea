"""Random Markov decision processes with tables for everything (Duan et al. 2016, RL^2, arXiv 1611.02779).

Transitions and mean rewards are the task: P(. | s, a) ~ Dirichlet(1, ..., 1), means ~ N(1, 1), rewards ~ N(mean, 1).
Episodes start in state 0 and last `horizon` steps. A trial is several episodes in one process.

A `varied` family holds easy and hard processes: the rewards' standard deviation is drawn from 0.1 to 3, the Dirichlet's
concentration from 0.03, where nearly every action leads to one state, to 3, both evenly in their logarithm.

Tasks are drawn from a continuum, where no two draws are the same: all splits draw from the whole of it, independently,
and hence share no task.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs.splits import only_train_seen
from jaxmeta_envs.tabular_mdp.policies import tabular_mdp_policies
from jaxmeta_envs.tabular_mdp.rendering import mdp_scene

SPLITS = ("train", "validation", "test")
NOISE, CONCENTRATION = (0.1, 3.0), (0.03, 3.0)
"""From which a varied family draws."""


@struct.dataclass
class EnvState(environment.EnvState):
    """Where an episode is."""

    time: Any
    """[] int32, steps taken in this episode."""
    node: jax.Array
    """[] int32, the state of the process."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 10
    """[] int32, steps after which an episode is truncated."""
    transitions: jax.Array = struct.field(default_factory=lambda: jnp.full((2, 2, 2), 0.5, jnp.float32))
    """[states, actions, states] float32, probability of the next state."""
    rewards: jax.Array = struct.field(default_factory=lambda: jnp.ones((2, 2), jnp.float32))
    """[states, actions] float32, mean reward."""
    noise: Any = 1.0
    """[] float32, standard deviation of a reward."""


class TabularMDP(environment.Environment[EnvState, EnvParams]):
    """A Markov decision process given by its tables. The observation is the state, one-hot.

    No state is terminal: an episode is truncated after `max_steps_in_episode` steps.
    """

    def __init__(self, states: int, actions: int):
        super().__init__()
        self.states = states
        self.actions = actions

    @property
    def default_params(self) -> EnvParams:
        """Every state follows every other with the same probability, and every reward is 1 on average."""
        table = (self.states, self.actions)
        transitions = jnp.full((*table, self.states), 1 / self.states, jnp.float32)
        return EnvParams(transitions=transitions, rewards=jnp.ones(table, jnp.float32))

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Draws a reward and the next state."""
        reward_key, node_key = jax.random.split(key)
        noise = params.noise * jax.random.normal(reward_key, (), jnp.float32)
        reward = params.rewards[state.node, action] + noise
        # The first state whose cumulative probability is above a uniform draw.
        below = jnp.cumsum(params.transitions[state.node, action]) <= jax.random.uniform(node_key, (), jnp.float32)
        node = jnp.minimum(jnp.sum(below, dtype=jnp.int32), self.states - 1)
        state = EnvState(time=state.time + 1, node=node)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Starts in state 0."""
        state = EnvState(time=jnp.zeros((), jnp.int32), node=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """One-hot of the state, [states] float32."""
        return jax.nn.one_hot(state.node, self.states, dtype=jnp.float32)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Never, [] bool."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """Actions in every state."""
        return self.actions

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Numbers of the actions."""
        return spaces.Discrete(self.actions)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """One entry a state."""
        return spaces.Box(0.0, 1.0, (self.states,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time and state."""
        time = spaces.Box(0, params.max_steps_in_episode, (), jnp.int32)
        return spaces.Dict({"time": time, "node": spaces.Discrete(self.states)})


def _evenly_in_log(key: Key, ends: tuple[float, float]) -> jax.Array:
    low, high = jnp.log(jnp.array(ends, jnp.float32))
    return jnp.exp(jax.random.uniform(key, (), jnp.float32, low, high))


environment_of = functools.cache(TabularMDP)
"""The environment of a size: one instance each, since gymnax compiles anew for every instance."""


def best_return(params: EnvParams) -> jax.Array:
    """Best expected return of an episode for an agent that knows the task, by dynamic programming, [] float32.

    >>> round(float(best_return(TabularMDP(3, 2).default_params)), 3)
    10.0
    """

    def backup(_: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.max(params.rewards + params.transitions @ values, axis=-1)

    values = jnp.zeros(params.rewards.shape[0], jnp.float32)
    return jax.lax.fori_loop(0, params.max_steps_in_episode, backup, values)[0]


def tabular_mdp(
    states: int = 10, actions: int = 5, horizon: int = 10, episodes: int = 10, varied: bool = False
) -> TaskDistribution:
    """Random Markov decision processes; transitions and mean rewards are the task (Duan et al. 2016).

    Args:
      states: number of states, at least 2.
      actions: number of actions, at least 2.
      horizon: steps of an episode, at least 1.
      episodes: episodes of a trial, at least 1.
      varied: draw noise and concentration anew for every task. Its description is then three numbers: the logarithm
        of the noise, how evenly states follow each other, from 0 to 1, and how much mean rewards differ. The family's
        policies take both for 1 as ever.

    Raises:
      UsageError: an option out of range.

    >>> tabular_mdp(states=4).sample(jax.random.key(0), "test").transitions.shape
    (4, 5, 4)
    """
    require(states >= 2, "tabular_mdp:states", "be at least 2", states)
    require(actions >= 2, "tabular_mdp:actions", "be at least 2", actions)
    require(horizon >= 1, "tabular_mdp:horizon", "be at least 1", horizon)
    require(episodes >= 1, "tabular_mdp:episodes", "be at least 1", episodes)

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        transition_key, reward_key = jax.random.split(key)
        noise, concentration = jnp.ones((), jnp.float32), jnp.ones((), jnp.float32)
        if varied:
            transition_key, reward_key, noise_key, concentration_key = jax.random.split(key, 4)
            noise, concentration = _evenly_in_log(noise_key, NOISE), _evenly_in_log(concentration_key, CONCENTRATION)
        weights = jnp.broadcast_to(concentration, (states,))
        return EnvParams(
            max_steps_in_episode=jnp.array(horizon, jnp.int32),
            transitions=jax.random.dirichlet(transition_key, weights, (states, actions), jnp.float32),
            rewards=1 + jax.random.normal(reward_key, (states, actions), jnp.float32),
            noise=noise,
        )

    def describe(params: EnvParams) -> jax.Array:
        if varied:
            evenness = jnp.mean(jnp.sum(jax.scipy.special.entr(params.transitions), axis=-1)) / jnp.log(states)
            return jnp.stack([jnp.log(params.noise), evenness, jnp.std(params.rewards)])
        return jnp.concatenate([params.transitions.ravel(), params.rewards.ravel()])

    return TaskDistribution(
        name="tabular_mdp",
        env=environment_of(states, actions),
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=describe,
        oracle=best_return,
        suggested={"adaptation.num_adaptations": episodes},
        policies=functools.partial(tabular_mdp_policies, states, actions, horizon),
        scene=mdp_scene,
    )
