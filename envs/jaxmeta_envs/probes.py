"""Probes: environments so small that the right action values are known, to test agents with.

An agent that fails a probe is wrong in the one thing that the probe adds:

    1  one step, one observation, reward 1                      the value head learns a constant
    2  one step, observation -1 or 1, reward = observation      the value depends on the observation
    3  two steps, reward 1 after the second                     the discount, and values passed back in time
    4  one step, reward -1 for action 0 and 1 for action 1      the value depends on the action
    5  one step, reward 1 where action and observation match    ... on both
    6  reward 1 a step, for ever, truncated after four          bootstrapping: 1 / (1 - discount), not a sum over four

All but the sixth terminate. In the fifth, a mismatch is worth -1. The observation after the end is 0. After the probe
environments of Andy Jones, "Debugging RL, without the agonizing pain" (2021).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution

ACTIONS = 2
TRUNCATION = 4
"""Steps after which any episode is cut short; only the sixth probe lasts so long."""
TERMINAL = -1
SPLITS = ("train", "validation", "test")


class Table(NamedTuple):
    """A probe in full: a Markov decision process of N nodes whose transitions do not depend on the action."""

    observations: tuple[float, ...]
    """What each node shows, N."""
    rewards: tuple[tuple[float, float], ...]
    """By node and action, N x A."""
    successors: tuple[int, ...]
    """The node that follows each, N, or `TERMINAL`."""
    starts: int
    """An episode starts in one of the first so many nodes, uniformly."""
    q_values: Callable[[float], list[list[float]]]
    """Known optimal action values at a discount, N x A."""
    best_return: float
    """Best expected undiscounted return of an episode."""
    horizon: int
    """Steps of an episode."""


TABLES = {
    1: Table((0.0,), ((1, 1),), (TERMINAL,), 1, lambda discount: [[1, 1]], 1.0, 1),
    2: Table((-1, 1), ((-1, -1), (1, 1)), (TERMINAL,) * 2, 2, lambda discount: [[-1, -1], [1, 1]], 0.0, 1),
    3: Table((0, 1), ((0, 0), (1, 1)), (1, TERMINAL), 1, lambda discount: [[discount, discount], [1, 1]], 1.0, 2),
    4: Table((0.0,), ((-1, 1),), (TERMINAL,), 1, lambda discount: [[-1, 1]], 1.0, 1),
    5: Table((-1, 1), ((1, -1), (-1, 1)), (TERMINAL,) * 2, 2, lambda discount: [[1, -1], [-1, 1]], 1.0, 1),
    6: Table((0.0,), ((1, 1),), (0,), 1, lambda discount: [[1 / (1 - discount)] * 2], float(TRUNCATION), TRUNCATION),
}
"""The probes by number. In the fifth, action 0 matches observation -1 and action 1 matches 1."""


@struct.dataclass
class EnvState(environment.EnvState):
    """Where an episode is."""

    time: Any
    """[] int32, steps taken in this episode."""
    node: jax.Array
    """[] int32, or `TERMINAL`."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """The only task of a probe."""

    max_steps_in_episode: Any = TRUNCATION
    """[] int32, steps after which an episode is truncated."""


class Probe(environment.Environment[EnvState, EnvParams]):
    """The environment that plays out a table."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number
        self.table = TABLES[number]

    @property
    def default_params(self) -> EnvParams:
        """The only task."""
        return EnvParams()

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Pays the reward of the node and action, and moves on; deterministic."""
        reward = jnp.array(self.table.rewards, jnp.float32)[state.node, action]
        successor = jnp.array(self.table.successors, jnp.int32)[state.node]
        state = EnvState(time=state.time + 1, node=successor)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Draws the node to start in."""
        node = jax.random.randint(key, (), 0, self.table.starts, jnp.int32)
        state = EnvState(time=jnp.zeros((), jnp.int32), node=node)
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """What the node shows, [1] float32; zero after the end."""
        shown = jnp.array(self.table.observations, jnp.float32)[state.node]
        return jnp.where(state.node == TERMINAL, 0.0, shown).reshape(1)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether nothing follows, [] bool."""
        return state.node == TERMINAL

    @property
    def name(self) -> str:
        """Name with the number, such as `Probe3`."""
        return f"Probe{self.number}"

    @property
    def num_actions(self) -> int:
        """Two."""
        return ACTIONS

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Two actions."""
        return spaces.Discrete(ACTIONS)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """One number."""
        return spaces.Box(-1.0, 1.0, (1,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time and node."""
        return spaces.Dict(
            {
                "time": spaces.Box(0, params.max_steps_in_episode, (), jnp.int32),
                "node": spaces.Box(TERMINAL, len(self.table.observations) - 1, (), jnp.int32),
            }
        )


environment_of = functools.cache(Probe)
"""The environment of a number: one instance each, since gymnax compiles anew for every instance."""


def probe_values(number: int, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """What an agent should learn in a probe.

    Args:
      number: of the probe, from 1 to 6.
      discount: in [0, 1).

    Returns:
      Every observation, [N, 1] float32, and its optimal action values, [N, 2] float32.

    Raises:
      UsageError: an argument out of range.

    >>> observations, q_values = probe_values(3, 0.5)
    >>> observations.tolist(), q_values.tolist()
    ([[0.0], [1.0]], [[0.5, 0.5], [1.0, 1.0]])
    """
    require(number in TABLES, "number", f"be from 1 to {len(TABLES)}", number)
    require(0 <= discount < 1, "discount", "be at least 0 and less than 1", discount)
    table = TABLES[number]
    return np.array(table.observations, np.float32)[:, None], np.array(table.q_values(discount), np.float32)


def probe(number: int = 1) -> TaskDistribution:
    """A tiny environment with known action values, to test an agent with; every split has the one same task.

    Args:
      number: from 1 to 6; what each of them tests is said at the top of the module.

    Raises:
      UsageError: no probe has that number.

    >>> float(probe(number=6).oracle(EnvParams()))
    4.0
    """
    require(number in TABLES, "probe:number", f"be from 1 to {len(TABLES)}", number)
    table = TABLES[number]

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        return EnvParams(max_steps_in_episode=jnp.array(TRUNCATION, jnp.int32))

    def tasks_seen(split: str) -> bool:
        require_known("split", split, SPLITS)
        return True

    def describe(params: EnvParams) -> jax.Array:
        return jnp.zeros((1,), jnp.float32)

    def oracle(params: EnvParams) -> jax.Array:
        return jnp.array(table.best_return, jnp.float32)

    return TaskDistribution(
        name="probe",
        env=environment_of(number),
        sample=sample,
        splits=SPLITS,
        tasks_seen=tasks_seen,
        horizon=table.horizon,
        describe=describe,
        oracle=oracle,
        suggested={"agent.discount": 0.9},
    )
