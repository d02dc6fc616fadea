"""Recommendations to a new user: which of the items in a catalogue are clicked on, and soon tired of.

The user is the task: a preference, hidden, and with drift another one that interests move to in the course of every
session. A session is an episode, and a lifetime is several sessions of one user. The catalogue belongs to the family
(`recommender_model`).

Users are drawn from a continuum, where no two draws are the same: train, validation and test draw from the whole of it,
independently, and hence share no user. Those of `shifted` have stronger tastes than any of these.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs.recommender.model import STRENGTH, best_return, interest, make_catalogue
from jaxmeta_envs.recommender.policies import recommender_policies
from jaxmeta_envs.recommender.rendering import session_scene
from jaxmeta_envs.splits import only_train_seen

SPLITS = ("train", "validation", "test", "shifted")
SHIFTED_STRENGTH = (4.5, 6.0)
"""From which `shifted` draws the strength of a taste; everybody else's is `STRENGTH`."""
MOST_CHOICES = 200_000
MOST_FEATURES = 1000
"""Items in states that the oracle weighs at every step: those of 57 items with a window of 2, of 20 with one of 3."""


@struct.dataclass
class EnvState(environment.EnvState):
    """Where a session is."""

    time: Any
    """[] int32, items shown in this session."""
    shown: jax.Array
    """[window] int32, the last items shown, the last one first; the number of items where fewer were shown."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One user."""

    max_steps_in_episode: Any = 20
    """[] int32, steps after which a session is truncated."""
    preference: jax.Array = struct.field(default_factory=lambda: jnp.eye(4, dtype=jnp.float32)[0])
    """[features] float32, of length 1: interests at the start of a session."""
    later: jax.Array = struct.field(default_factory=lambda: jnp.eye(4, dtype=jnp.float32)[1])
    """[features] float32, of length 1: what they move to."""
    drift: Any = 0.0
    """[] float32, the share of `later` at a session's end, from 0 to 1."""
    strength: Any = STRENGTH
    """[] float32, how much the preference decides, in logits."""


class Recommender(environment.Environment[EnvState, EnvParams]):
    """Items shown to one user, one a step. The reward is 1 for a click and 0 for none.

    The observation is the last `window` items shown, one-hot, the last one first and zeros where fewer were shown, and
    the share of the session that has passed; so it is Markov for who knows the user. No state is terminal: a session is
    truncated after `max_steps_in_episode` steps.
    """

    def __init__(self, items: int, features: int, window: int):
        super().__init__()
        self.items = items
        self.features = features
        self.window = window
        self.catalogue = make_catalogue(items, features)

    @property
    def default_params(self) -> EnvParams:
        """A user who likes the first feature and stays with it."""
        preference, later = jnp.eye(self.features, dtype=jnp.float32)[:2]
        return EnvParams(preference=preference, later=later)

    def preference(self, time: jax.Array, params: EnvParams) -> jax.Array:
        """The preference after so many steps of a session, [features] float32, of length 1."""
        share = params.drift * time / params.max_steps_in_episode
        between = (1 - share) * params.preference + share * params.later
        return between / jnp.maximum(jnp.linalg.norm(between), 1e-6)

    def chances(self, time: jax.Array, params: EnvParams) -> jax.Array:
        """Chance of a click on each item that was not shown of late, [items] float32."""
        return self.catalogue.chances(self.preference(time, params), params.strength)

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Shows an item, and draws whether it is clicked on."""
        chance = self.chances(state.time, params)[action] * interest(self._seen(state))[action]
        reward = (jax.random.uniform(key, (), jnp.float32) < chance).astype(jnp.float32)
        shown = jnp.roll(state.shown, 1).at[0].set(jnp.asarray(action, jnp.int32))
        state = EnvState(time=state.time + 1, shown=shown)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state, params), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Nothing was shown yet; nothing is drawn."""
        state = EnvState(time=jnp.zeros((), jnp.int32), shown=jnp.full(self.window, self.items, jnp.int32))
        return self.get_obs(state, params), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """What was shown, and the share of the session that has passed, [window * items + 1] float32."""
        steps = (self.default_params if params is None else params).max_steps_in_episode
        passed = jnp.asarray(state.time / steps, jnp.float32)
        return jnp.append(self._seen(state).ravel(), passed)

    def _seen(self, state: EnvState) -> jax.Array:
        """[window, items] float32, one-hot, of which the number of items gives zeros."""
        return jax.nn.one_hot(state.shown, self.items, dtype=jnp.float32)

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Never, [] bool."""
        return jnp.zeros((), bool)

    @property
    def num_actions(self) -> int:
        """One an item."""
        return self.items

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Numbers of the items."""
        return spaces.Discrete(self.items)

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """One entry for each item and step of the window, and one for the time."""
        return spaces.Box(0.0, 1.0, (self.window * self.items + 1,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time and the last items shown."""
        time = spaces.Box(0, params.max_steps_in_episode, (), jnp.int32)
        return spaces.Dict({"time": time, "shown": spaces.Box(0, self.items, (self.window,), jnp.int32)})


environment_of = functools.cache(Recommender)
"""The environment of a size: one instance each, since gymnax compiles anew for every instance."""


def recommender(
    items: int = 20, features: int = 4, session: int = 20, window: int = 2, drift: float = 0.0
) -> TaskDistribution:
    """Show items of a catalogue to a new user, who clicks and tires of them; what the user likes is the task.

    Args:
      items: of the catalogue, at least 2. The oracle weighs items * (items + 1)^window choices, at most `MOST_CHOICES`.
      features: of an item, from 2 to 1000.
      session: steps of an episode, at least 1.
      window: steps until interest in an item that was shown is whole again, from 1 to 3.
      drift: share of the way to another preference that interests go in a session, from 0 to 1.

    Raises:
      UsageError: an option out of range.

    >>> tasks = recommender(items=5, drift=0.5)
    >>> tasks.env.num_actions, tasks.describe(tasks.sample(jax.random.key(0), "test")).shape
    (5, (8,))
    """
    require(items >= 2, "recommender:items", "be at least 2", items)
    require(2 <= features <= MOST_FEATURES, "recommender:features", f"be from 2 to {MOST_FEATURES}", features)
    require(session >= 1, "recommender:session", "be at least 1", session)
    require(1 <= window <= 3, "recommender:window", "be from 1 to 3", window)
    rule = f"keep items * (items + 1)^{window}, the choices that the oracle weighs, at most {MOST_CHOICES}"
    require(items * (items + 1) ** window <= MOST_CHOICES, "recommender:items", rule, items)
    require(0 <= drift <= 1, "recommender:drift", "be from 0 to 1", drift)
    env = environment_of(items, features, window)

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        # Else the same key would draw the same user in every split.
        preference_key, strength_key = jax.random.split(jax.random.fold_in(key, SPLITS.index(split)))
        directions = jax.random.normal(preference_key, (2, features), jnp.float32)
        preference, later = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
        strength = jnp.array(STRENGTH, jnp.float32)
        if split == "shifted":
            strength = jax.random.uniform(strength_key, (), jnp.float32, *SHIFTED_STRENGTH)
        return EnvParams(
            max_steps_in_episode=jnp.array(session, jnp.int32),
            preference=preference,
            later=later,
            drift=jnp.array(drift, jnp.float32),
            strength=strength,
        )

    def describe(params: EnvParams) -> jax.Array:
        return jnp.concatenate([params.preference, params.later]) if drift else params.preference

    def oracle(params: EnvParams) -> jax.Array:
        chances = jax.vmap(lambda time: env.chances(time, params))(jnp.arange(session))
        return best_return(chances, window)

    return TaskDistribution(
        name="recommender",
        env=env,
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=session,
        describe=describe,
        oracle=oracle,
        suggested={"agent.discount": 0.9},
        policies=functools.partial(recommender_policies, env.catalogue, session, window, drift),
        scene=functools.partial(session_scene, chances=env.chances),
    )
