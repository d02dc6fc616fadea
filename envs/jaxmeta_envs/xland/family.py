"""XLand: a small world of objects with hidden production rules and a hidden goal, on XLand-MiniGrid.

A task is a rule set: a chain of rules that turn objects into others, a goal about the last product, and the objects
that an episode starts with. It is drawn here, inside `jit`, and encoded and played by `xminigrid` (Nikulin et al. 2023,
XLand-MiniGrid, arXiv 2312.12044), an optional dependency, needed only once a task distribution is made.
"""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces

from jaxmeta.core.errors import require, require_known
from jaxmeta.core.types import Key, TaskDistribution
from jaxmeta_envs.splits import CLASSES, only_train_seen
from jaxmeta_envs.xland.rendering import room_scene
from jaxmeta_envs.xland.rules import (
    GOALS,
    RULES,
    TILE_FEATURES,
    apply_rules,
    check_goal,
    draw_of_split,
    draw_ruleset,
    load_xminigrid,
    tile_features,
)

if TYPE_CHECKING:
    from xminigrid.types import AgentState, RuleSet

ACTIONS = ("move forward", "turn clockwise", "turn counterclockwise", "pick up", "put down")
"""The actions of xminigrid without its last, which opens doors: there are none."""
VIEW = 5
"""Cells along a side of what the agent sees: the square before it, its own cell in the middle of the nearest row."""
LARGEST_SIZE = 1000
DEEPEST = 4
"""Longest chain; shifted tasks have one rule more."""
SPLITS = (*CLASSES, "shifted")


@struct.dataclass
class EnvState(environment.EnvState):
    """One moment of an episode."""

    time: Any
    """[] int32, steps taken in this episode."""
    grid: jax.Array
    """[size, size, 2] uint8, shape and colour in every cell, by xminigrid's numbers."""
    agent: "AgentState"
    """xminigrid's: position [2] int as (row, column), direction [] int as up, right, down, left, pocket [2] uint8."""
    achieved: jax.Array
    """[] bool, whether the step that led here achieved the goal."""


@struct.dataclass
class EnvParams(environment.EnvParams):
    """One task."""

    max_steps_in_episode: Any = 100
    """[] int32, steps after which an episode is truncated."""
    ruleset: "RuleSet" = struct.field(default_factory=lambda: draw_ruleset(jax.random.key(0), depth=1))
    """xminigrid's: goal [5] uint8, rules [depth, 7] uint8, init_tiles [objects, 2] uint8, padded with empty tiles."""


class XLand(environment.Environment[EnvState, EnvParams]):
    """A walled room with objects in random places, and an agent in another, looking in a random direction.

    The step that achieves the goal ends the episode with a reward of 1 - 0.9 t / `max_steps_in_episode`, t steps after
    its start. All other rewards are 0. An episode is truncated after `max_steps_in_episode` steps.

    Rules and goals of the kinds named at the top are played, in xminigrid's own encoding; its other kinds, which mind
    the side on which objects lie, would make every step slower.

    Raises:
      UsageError: xminigrid is not installed.
    """

    def __init__(self, size: int = 7):
        super().__init__()
        load_xminigrid()
        self.size = size

    @property
    def default_params(self) -> EnvParams:
        """Some task with a single rule."""
        return EnvParams()

    def step_env(
        self, key: jax.Array, state: EnvState, action: int | float | jax.Array, params: EnvParams
    ) -> tuple[jax.Array, EnvState, jax.Array, jax.Array, dict[Any, Any]]:
        """Acts, then applies every rule once, in their order, then looks at the goal; deterministic."""
        from xminigrid.core.actions import take_action

        action = jnp.asarray(action, jnp.int32)
        grid, agent, changed = take_action(state.grid, state.agent, action)
        grid, agent = apply_rules(params.ruleset.rules, grid, agent, action, changed)
        achieved = check_goal(params.ruleset.goal, grid, agent, action, changed)
        state = EnvState(time=state.time + 1, grid=grid, agent=agent, achieved=achieved)
        elapsed = jnp.asarray(state.time / params.max_steps_in_episode, jnp.float32)
        reward = jnp.where(achieved, 1 - 0.9 * elapsed, 0).astype(jnp.float32)
        info = {"discount": self.discount(state, params)}
        return self.get_obs(state), state, reward, self.is_terminated(state, params), info

    def reset_env(self, key: jax.Array, params: EnvParams) -> tuple[jax.Array, EnvState]:
        """Puts the task's objects and the agent into different cells, uniformly."""
        from xminigrid.core.constants import TILES_REGISTRY, Colors, Tiles
        from xminigrid.core.grid import room
        from xminigrid.types import AgentState

        key_cells, key_direction = jax.random.split(key)
        inside = np.argwhere(np.ones((self.size - 2, self.size - 2))) + 1
        cells = jax.random.permutation(key_cells, jnp.asarray(inside, int))
        objects = params.ruleset.init_tiles
        floor = jnp.full_like(objects, TILES_REGISTRY[Tiles.FLOOR, Colors.BLACK])
        padding = objects[:, :1] == Tiles.EMPTY
        rows, columns = cells[: len(objects)].T
        state = EnvState(
            time=jnp.zeros((), jnp.int32),
            grid=room(self.size, self.size).at[rows, columns].set(jnp.where(padding, floor, objects)),
            agent=AgentState(position=cells[len(objects)], direction=jax.random.randint(key_direction, (), 0, 4)),
            achieved=jnp.zeros((), bool),
        )
        return self.get_obs(state), state

    def get_obs(self, state: EnvState, params: EnvParams | None = None, key: jax.Array | None = None) -> jax.Array:
        """The agent's view and the object that it holds, [(VIEW * VIEW + 1) * TILE_FEATURES] float32; no rules or goal.

        Row after row of the view from the farthest to the agent's own, from left to right, then the pocket; of each
        tile whether it is wall, and one-hot its shape and its colour. Floor is all zeros, and so is an empty pocket.
        """
        from xminigrid.core.observation import transparent_field_of_view

        view = transparent_field_of_view(state.grid, state.agent, VIEW, VIEW)
        tiles = jnp.concatenate([view.reshape(-1, 2), state.agent.pocket[None]])
        return jax.vmap(tile_features)(tiles).ravel()

    def is_terminated(self, state: EnvState, params: EnvParams) -> jax.Array:
        """Whether the goal was achieved, [] bool."""
        return state.achieved

    @property
    def num_actions(self) -> int:
        """Forward, two turns, pick up, put down."""
        return len(ACTIONS)

    def action_space(self, params: EnvParams | None = None) -> spaces.Discrete:
        """Indices of `ACTIONS`."""
        return spaces.Discrete(len(ACTIONS))

    def observation_space(self, params: EnvParams) -> spaces.Box:
        """The features of every cell in view, and of the pocket."""
        return spaces.Box(0.0, 1.0, ((VIEW**2 + 1) * TILE_FEATURES,), jnp.float32)

    def state_space(self, params: EnvParams) -> spaces.Dict:
        """Time, grid, agent, and whether the goal was achieved."""
        agent = {
            "position": spaces.Box(1, self.size - 2, (2,), jnp.int32),
            "direction": spaces.Discrete(4),
            "pocket": spaces.Box(0, 255, (2,), jnp.uint8),
        }
        return spaces.Dict(
            {
                "time": spaces.Box(0, params.max_steps_in_episode, (), jnp.int32),
                "grid": spaces.Box(0, 255, (self.size, self.size, 2), jnp.uint8),
                "agent": spaces.Dict(agent),
                "achieved": spaces.Discrete(2),
            }
        )


environment_of = functools.cache(XLand)
"""The environment of a size: one instance each, since gymnax compiles anew for every instance."""


def describe(params: EnvParams, depth: int) -> jax.Array:
    """The goal and up to `depth` rules: kinds one-hot, then the features of their objects as in an observation.

    Args:
      params: the task, with at most `depth` rules.
      depth: rules to make room for; static.

    Returns:
      [5 + 2 TILE_FEATURES + depth (4 + 3 TILE_FEATURES)] float32; zeros in place of absent rules and objects.
    """
    goal, rules = params.ruleset.goal, params.ruleset.rules

    def features(encoding: jax.Array, kinds: int) -> jax.Array:
        kind = jax.nn.one_hot(encoding[0], kinds, dtype=jnp.float32)
        return jnp.append(kind, jax.vmap(tile_features)(encoding[1:].reshape(-1, 2)).ravel())

    chain = jax.vmap(functools.partial(features, kinds=len(RULES)))(rules)
    chain = jnp.pad(chain, ((0, depth - len(rules)), (0, 0)))
    return jnp.append(features(goal, len(GOALS)), chain.ravel())


def xland(size: int = 7, horizon: int = 100, depth: int = 1, distractors: int = 2) -> TaskDistribution:
    """Find out what objects turn into and which one is wanted; the rule set is the task (Nikulin et al. 2023).

    At `depth=1` there are 166,152 rule sets, distractors not counted, and over a hundred times as many with each rule
    more. Train, validation and test tasks differ in the class of their rules and goal (`xland_rules.classify`),
    whatever the distractors. Shifted ones have one rule more. There is no oracle: the best return would take a search
    through all that an episode can come to.

    Args:
      size: cells along a side of the grid, its walls included, from 5 to 1000.
      horizon: steps of an episode, at least 1.
      depth: rules in the chain from the first object to the goal's, from 1 to 4.
      distractors: objects that no rule is about, from 0 to 8.

    Raises:
      UsageError: an option out of range, more objects than the grid has room for, or xminigrid is not installed.
    """
    require(5 <= size <= LARGEST_SIZE, "xland:size", f"be from 5 to {LARGEST_SIZE}", size)
    require(horizon >= 1, "xland:horizon", "be at least 1", horizon)
    require(1 <= depth <= DEEPEST, "xland:depth", f"be from 1 to {DEEPEST}", depth)
    require(0 <= distractors <= 8, "xland:distractors", "be from 0 to 8", distractors)
    most = depth + 3 + distractors
    room = f"leave half of its {(size - 2) ** 2} cells free of the up to {most} objects of a shifted task"
    require(2 * most <= (size - 2) ** 2, "xland:size", room, size)
    load_xminigrid()

    def sample(key: Key, split: str) -> EnvParams:
        require_known("split", split, SPLITS)
        steps = jnp.array(horizon, jnp.int32)
        if split == "shifted":
            ruleset = draw_ruleset(key, depth + 1, distractors)
        else:
            ruleset = draw_of_split(key, split, depth, distractors)
        return EnvParams(max_steps_in_episode=steps, ruleset=ruleset)

    return TaskDistribution(
        name="xland",
        env=environment_of(size),
        sample=sample,
        splits=SPLITS,
        tasks_seen=functools.partial(only_train_seen, SPLITS),
        horizon=horizon,
        describe=functools.partial(describe, depth=depth + 1),
        oracle=None,
        suggested={"agent.discount": 0.97},
        scene=functools.partial(room_scene, view=VIEW),
    )
