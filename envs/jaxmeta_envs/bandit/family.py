"""Bandits: arms of unknown worth (Duan et al. 2016, RL^2, arXiv 1611.02779).

What the arms pay is the task. An episode is one pull, after which the arms stay what they are; so a trial of n pulls is
a lifetime of n episodes in one task.

Tasks are drawn from a continuum, where no two draws are the same: all splits draw from the whole of it, independently,
and hence share no task. The exact optimum of `bandit_planning.bayes_optimal_return` holds for each of them.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs.bandit.policies import bernoulli_policies, gaussian_policies
from jaxmeta_envs.bandit.rendering import bandit_scene
from jaxmeta_envs.splits import only_train_seen

SPLITS = ("train", "validation", "test")


@struct.dataclass
class EnvState(environment.EnvState):
    """Where an episode is."""

    time: Any
    """[] int32, pulls in this episode: 0, or 1 at its end."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 1
    """[] int32, pulls of an episode."""
    means: jax.Array = struct.field(default_factory=lambda: jnp.array([0.25, 0.75], jnp.float32))
    """[arms] float32, the expected reward of each arm."""


class Bandit(environment.Environment[EnvState, EnvParams]):
    """One pull of one of many arms. The observation is constant: the reward alone shows what an arm paid.

    An arm pays 1 with a probability of its mean, and 0 otherwise; or, `gaussian`, its mean plus standard normal noise.
    """

    def __init__(self, arms: int, gaussian: bool = False):
        super().__init__()
        self.arms = arms
        self.gaussian = gaussian

    @property
    def default_params(self) -> EnvParams:
        """Arms that pay more the higher their number."""
        return EnvParams(means=jnp.linspace(0.0, 1.0, self.arms, dtype=jnp.float32))

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Pulls an arm; the episode ends."""
        mean = params.means[action]
        if self.gaussian:
            reward = mean + jax.random.normal(key, (), jnp.float32)
        else:
            reward = (jax.random.uniform(key, (), jnp.float32) < mean).astype(jnp.float32)
        state = EnvState(time=state.time + 1)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Nothing is drawn."""
        state = EnvState(time=jnp.zeros((), jnp.int32))
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """A constant, [1] float32."""
        return jnp.ones((1,), jnp.float32)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """After one pull, [] bool."""
        return state.time >= 1

    @property
    def num_actions(self) -> int:
        """One an arm."""
        return self.arms

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Numbers of the arms."""
        return spaces.Discrete(self.arms)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """The constant."""
        return spaces.Box(1.0, 1.0, (1,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """The number of pulls."""
        return spaces.Dict({"time": spaces.Box(0, 1, (), jnp.int32)})


environment_of = functools.cache(Bandit)
"""The environment of a number of arms: one instance each, since gymnax compiles anew for every instance."""


def bandit(arms: int = 5, pulls: int = 10) -> TaskDistribution:
    """Arms that pay 1 or 0, with probabilities drawn uniformly from 0 to 1 (Duan et al. 2016).

    Args:
      arms: number of arms, at least 2.
      pulls: pulls of a trial, at least 1.

    Raises:
      UsageError: an option out of range.

    >>> bandit(arms=3).sample(jax.random.key(0), "test").means.shape
    (3,)
    """
    return _bandit("bandit", arms, pulls, jax.random.uniform, bernoulli_policies, gaussian=False)


def gaussian_bandit(arms: int = 5, pulls: int = 10) -> TaskDistribution:
    """Arms that pay a mean plus standard normal noise; the means are standard normal too.

    Args:
      arms: number of arms, at least 2.
      pulls: pulls of a trial, at least 1.

    Raises:
      UsageError: an option out of range.
    """
    return _bandit("gaussian_bandit", arms, pulls, jax.random.normal, gaussian_policies, gaussian=True)


def _bandit(name: str, arms: int, pulls: int, prior: Any, policies: Any, gaussian: bool) -> TaskDistribution:
    require(arms >= 2, f"{name}:arms", "be at least 2", arms)
    require(pulls >= 1, f"{name}:pulls", "be at least 1", pulls)

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        return EnvParams(max_steps_in_episode=jnp.array(1, jnp.int32), means=prior(key, (arms,), jnp.float32))

    return TaskDistribution(
        name=name,
        env=environment_of(arms, gaussian),
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=1,
        describe=lambda params: params.means,
        oracle=lambda params: jnp.max(params.means),
        suggested={"adaptation.num_adaptations": pulls},
        policies=functools.partial(policies, arms),
        scene=functools.partial(bandit_scene, gaussian=gaussian),
    )
